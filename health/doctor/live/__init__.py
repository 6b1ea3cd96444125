"""Looking at a running service: it opens what it is told to and no more, and says what it did."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable

from ..errors import CannotRun
from ..finding import Rule
from ..render.report import Entry, Report
from . import rules
from .probing import TRIES, probe
from .stream import Watched, watch
from .wire import NoAnswer, Target, target


def examine_live(options: argparse.Namespace, report: Report) -> None:
    """Run the checks that the URLs allow. Raises CannotRun if one does not answer at all."""
    headers = _headers(options.header)
    if bool(options.through) != bool(options.direct):
        raise CannotRun("--through and --direct compare two ways to one stream: give both")
    if options.url:
        _stream(target(options.url), headers, options.patience, report)
    if options.through:
        _ways(target(options.through), target(options.direct), headers, options.patience, report)
    if options.probe_url:
        stream = options.url or options.direct or options.through
        _probe(target(options.probe_url), headers, target(stream) if stream else None, options.streams, report)


def _headers(lines: Iterable[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or any(each in line for each in "\r\n"):
            raise CannotRun(f"--header {line!r}: 'NAME: VALUE' is needed")
        found[name.strip()] = value.strip()
    return found


def _say(table: list[Rule], url: str, report: Report, *seen: object) -> None:
    for rule in table:
        for severity, reason in rule.check(*seen):
            report.entries.append(Entry(rule.id, rule.name, severity, reason, rule.link, "", url))


def _stream(where: Target, headers: dict[str, str], patience: float, report: Report) -> None:
    first = watch(where, headers, patience)
    _say(rules.STREAM, where.url, report, first)
    did = f"opened {where.url} and watched it for {first.watched:.1f} s: {len(first.with_data)} events"
    if first.is_stream:
        again = {**headers, "Accept-Encoding": "gzip"}
        if first.ids:
            again["Last-Event-ID"] = first.ids[0]
        # What ended is watched for as long again, to see whether it ends at the same age; else a resume is quick.
        seconds = first.watched + 1.5 if first.answer.ended else min(patience, 5.0)
        second = watch(where, again, seconds, enough=None if first.answer.ended else max(1, len(first.ids)))
        _say(rules.AGAIN, where.url, report, first, second)
        did += f"; opened it again for {second.watched:.1f} s, with Accept-Encoding: gzip" + (
            " and Last-Event-ID" if first.ids else ""
        )
    report.notes.append(did)


def _ways(through: Target, direct: Target, headers: dict[str, str], patience: float, report: Report) -> None:
    seen: dict[str, Watched] = {}
    errors: dict[str, CannotRun] = {}

    def look(name: str, where: Target) -> None:
        try:
            seen[name] = watch(where, headers, patience)
        except CannotRun as error:
            errors[name] = error

    threads = [threading.Thread(target=look, args=pair) for pair in (("direct", direct), ("through", through))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.notes.append(f"opened {through.url} and {direct.url} beside each other for {patience:g} s")
    if "direct" in errors:
        raise errors["direct"]
    _say(rules.STREAM[:1], direct.url, report, seen["direct"])
    if isinstance(errors.get("through"), NoAnswer) and seen["direct"].is_stream:
        # Not even the head: a proxy that fills its buffer first.
        _say(rules.WAYS[:1], through.url, report, None, seen["direct"])
        return
    if "through" in errors:
        raise errors["through"]
    _say(rules.STREAM[:1], through.url, report, seen["through"])
    _say(rules.WAYS, through.url, report, seen["through"], seen["direct"])


def _probe(where: Target, headers: dict[str, str], stream: Target | None, number: int, report: Report) -> None:
    found = probe(where, headers, stream, number)
    _say(rules.PROBE, where.url, report, found)
    did = f"asked {where.url} {TRIES} times alone"
    if stream is not None and number:
        did += f", and {TRIES} times beside {found.streams} streams of {stream.url} ({found.answered} answered)"
    report.notes.append(did)
