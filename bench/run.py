"""Runs the scenarios, the servers taking turns: A B C, then C B A, and so on.

    python -m bench                                    everything; writes docs/benchmarks.md
    python -m bench --budget 30                        the same in half an hour: fewer rounds, shorter runs
    python -m bench --quick                            under three minutes
    python -m bench --peers go,headwater --scenario saturation --streams 1000 --rounds 3 --seconds 5

Only a full run writes into docs/; any other writes into build/bench/, unless --out says otherwise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import build, load, machine, methods, peers, plan, report, scenarios, sections, tables
from bench.methods import Case
from bench.peers.base import Peer, PeerFailed
from bench.plan import Step
from bench.results import Results
from bench.scenarios import Scenario

ROOT = build.BENCH.parent
QUICK_PEERS = ["headwater", "go", "nchan", "better-sse", "flask-gevent"]
QUICK_SECONDS = 170.0
LEAST_MINUTES = 5
INTERRUPTED = 130  # a shell's exit status for SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _options(arguments)
    results = Results.load(_out(options))
    results.machine = machine.describe()
    results.command = " ".join(["python -m bench", *(sys.argv[1:] if arguments is None else arguments)])
    has_sections = _has_sections(options)
    budget = options.budget * 60 if options.budget else QUICK_SECONDS if options.quick else None
    tables_budget = budget * sections.TABLES_SHARE if budget and has_sections else budget
    queue = _queue(options, results)
    began = time.monotonic()  # a budget does not count what building takes
    status = 0
    try:
        _execute(queue, plan.Clock(tables_budget), began, results)
        results.save()
        report.write(results)
        if has_sections:
            left = budget - (time.monotonic() - began) if budget else None
            results.omitted += sections.run(left)
    except KeyboardInterrupt:
        print("\ninterrupted: the report has what was measured so far")
        status = INTERRUPTED
    results.save()
    path = report.write(results)
    print(f"\n{path} and {results.path}, in {time.monotonic() - began:.0f} s")
    return status


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.budget and (options.streams or options.size or options.rounds or options.seconds):
        parser.error("--budget chooses sizes, rounds and seconds itself")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    short = parser.add_mutually_exclusive_group()
    short.add_argument("--quick", action="store_true", help="fewer peers, cases and rounds: under three minutes")
    short.add_argument("--budget", type=_minutes, metavar="MINUTES", help="every table within so many minutes")
    parser.add_argument("--peers", type=_names(peers.KNOWN), help=f"of {', '.join(peers.KNOWN)}")
    parser.add_argument("--scenario", type=_names(scenarios.KNOWN), help=f"of {', '.join(scenarios.KNOWN)}")
    parser.add_argument("--streams", type=_integers, help="only the cases with these numbers of streams")
    parser.add_argument("--size", type=_integers, help="only the cases with these event sizes, in bytes")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="measured seconds a run")
    parser.add_argument("--tables", action="store_true", help="without the sections that modules of their own write")
    parser.add_argument("--out", type=Path, help="folder of benchmarks.md (docs for a full run, else build/bench)")
    return parser


def _names(known: dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return parse


def _minutes(text: str) -> float:
    minutes = float(text)
    if minutes < LEAST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text} minutes are too few for anything; {LEAST_MINUTES} at least")
    return minutes


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _out(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out)
    narrowed = (options.peers, options.streams, options.size, options.rounds, options.seconds)
    is_full = not options.quick and not options.scenario and not any(narrowed)
    return sections.DOCUMENT.parent if is_full else ROOT / "build" / "bench"


def _has_sections(options: argparse.Namespace) -> bool:
    """Say whether the modules that write sections of their own run, too: they know no other document."""
    return _out(options) == sections.DOCUMENT.parent and not options.tables


def _peers(options: argparse.Namespace) -> list[Peer]:
    names = options.peers or (QUICK_PEERS if options.quick else peers.DEFAULT)
    return [peers.KNOWN[name] for name in names]


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    if options.scenario:
        return [scenarios.KNOWN[name] for name in options.scenario]
    return [each for each in scenarios.KNOWN.values() if each.in_quick or not options.quick]


def _shaped(scenario: Scenario, options: argparse.Namespace) -> Scenario:
    """Shape the scenario by the command line; numbers that no case has make cases of their own."""
    shaped = scenario.quick() if options.quick else scenario
    for name in ("streams", "size"):
        wanted = getattr(options, name)
        if wanted and any(name in case for case in shaped.cases):
            rest = {str({k: v for k, v in case.items() if k != name}): case for case in shaped.cases}
            cases = [{**case, name: n} for case in rest.values() for n in (wanted if name in case else [None])]
            shaped = replace(shaped, cases=[{k: v for k, v in case.items() if v is not None} for case in cases])
    given = {name: getattr(options, name) for name in ("rounds", "seconds") if getattr(options, name)}
    return replace(shaped, **given)


def _queue(options: argparse.Namespace, results: Results) -> list[Step]:
    chosen = _scenarios(options)
    extra = [] if options.peers else [peers.KNOWN[name] for scenario in chosen for name in scenario.only]
    ready = _prepared(list(dict.fromkeys([*_peers(options), *extra])), results)
    if options.budget:
        names = {scenario.name for scenario in chosen}
        share = sections.TABLES_SHARE if _has_sections(options) else 1
        return [step for step in plan.within(options.budget * 60 * share, ready) if step.scenario.name in names]
    defaults = [peer for peer in ready if peer.name in {each.name for each in _peers(options)}]
    return [
        step
        for scenario in (_shaped(scenario, options) for scenario in chosen)
        for step in plan.everything([scenario], ready if scenario.only else defaults)
    ]


def _prepared(chosen: list[Peer], results: Results) -> list[Peer]:
    ready = []
    for peer in chosen:
        try:
            peer.prepare()
        except build.Unavailable as reason:
            results.skip(peer, str(reason))
            print(f"not run: {peer.title}: {reason}")
        else:
            results.known(peer)
            ready.append(peer)
    return ready


def _execute(queue: list[Step], clock: plan.Clock, began: float, results: Results) -> None:
    """Run the steps for which the time suffices."""
    begun: set[str] = set()
    results.omitted = []
    title = ""
    for step in queue:
        scenario, started = step.scenario, time.monotonic()
        if not clock.fits(step, started - began):
            if step.number == 0:
                results.omitted.append(step.title())
            continue
        if scenario.name not in begun:
            begun.add(scenario.name)
            results.begin(scenario)
        if scenario.title != title:
            title = scenario.title
            print(f"\n{title}  [{started - began:.0f} s]", flush=True)
        _run(step, results)
        clock.took(step, time.monotonic() - started)
        results.save()


def _run(step: Step, results: Results) -> None:
    scenario, case = step.scenario, step.case
    begin = f"  {step.number + 1}  {scenarios.label(case):34}"
    for joined in step.joins:
        try:
            metrics = methods.ceiling(case, min(plan.CEILING_SECONDS, scenario.seconds), joined)
        except subprocess.SubprocessError as error:
            print(f"{begin} the bare sender failed: {error}", flush=True)
            continue
        results.add_ceiling(scenario, case, step.number, metrics)
        print(f"{begin} {f'(ceiling x {joined})':18} {metrics['events_per_second']:,.0f} events/s", flush=True)
    for peer in step.in_turn():
        metrics = _measured(scenario, peer, case)
        results.add(scenario, peer, case, step.number, metrics)
        if "skipped" in metrics:
            continue
        print(f"{begin} {peer.name:18} {tables.line(scenario, metrics)}", flush=True)


def _measured(scenario: Scenario, peer: Peer, case: Case) -> dict[str, Any]:
    reason = scenario.misfit(peer, case)
    if reason:
        return {"skipped": reason}
    try:
        with peer.started(case.get("streams", 0)) as running:
            return scenario.measure(running, case, scenario.seconds)
    except (PeerFailed, load.LoadFailed, OSError, subprocess.SubprocessError) as error:
        return {"failed": str(error)[-500:]}
