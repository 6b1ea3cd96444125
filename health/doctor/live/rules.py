"""HW7xx: what is seen on the wire. Each check is given what was watched, and yields reasons."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from ..finding import BREAKS, NOTE, RISKS, SECTIONS, Rule, Severity
from .probing import Probing
from .stream import Event, Watched

Reason = tuple[Severity, str]

#: Checks of one stream, of a stream that was opened again, of two ways to one stream, and of a probe.
STREAM: list[Rule] = []
AGAIN: list[Rule] = []
WAYS: list[Rule] = []
PROBE: list[Rule] = []

#: Seconds that an event may be late before it is said to be held back.
_LATE = 1.0

#: Types of events that need no id.
_HEARTBEATS = frozenset({"heartbeat", "ping", "keepalive", "keep-alive"})


def _enter(table: list[Rule], id: str, name: str, severity: Severity, section: int) -> Callable[[Any], Any]:
    def enter(check: Any) -> Any:
        table.append(Rule(id, name, severity, SECTIONS[section], check))
        return check

    return enter


def live_rules() -> list[Rule]:
    return sorted([*STREAM, *AGAIN, *WAYS, *PROBE], key=lambda rule: rule.id)


@_enter(STREAM, "HW701", "not-a-stream", BREAKS, 11)
def not_a_stream(watched: Watched) -> Iterator[Reason]:
    """The answer is no event stream: another status than 200, or another content type.

    Source: WHATWG HTML, 9.2.3: "if res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then
    fail the connection".
    """
    status, kind = watched.answer.status, watched.answer.headers.get("content-type", "none")
    if status != 200:
        yield (
            BREAKS,
            f"status {status}: an EventSource takes 200 only" + (", and does not reconnect" if status != 503 else ""),
        )
    elif not watched.is_stream:
        yield BREAKS, f"content type {kind}: an EventSource takes text/event-stream only, and does not reconnect"


@_enter(STREAM, "HW702", "slow-head", RISKS, 11)
def slow_head(watched: Watched) -> Iterator[Reason]:
    """The head is late: something waits for the first event, or for a place in a pool.

    Source: WHATWG HTML, 9.2.3: the connection is announced (`open`) when the head is there; docs/failure-modes.md no.
    1, 11.
    """
    if watched.answer.head_seconds > 2:
        yield RISKS, f"the head came after {watched.answer.head_seconds:.1f} s: clients wait so long for `open`"


@_enter(STREAM, "HW703", "may-be-cached-or-changed", RISKS, 11)
def cacheable(watched: Watched) -> Iterator[Reason]:
    """No header tells caches and proxies to leave the stream alone.

    Source: RFC 9111, 5.2.2.4 (no-cache), 5.2.2.5 (no-store), 5.2.2.6 (no-transform); nginx, ngx_http_proxy_module:
    X-Accel-Buffering.
    """
    headers = watched.answer.headers
    control = headers.get("cache-control", "").lower()
    if not watched.is_stream:
        return
    if "no-cache" not in control and "no-store" not in control:
        yield (
            NOTE,
            f"Cache-Control {control or 'is missing'}: say no-cache (or no-store), or a cache may keep the stream",
        )


@_enter(STREAM, "HW704", "http-1.0", RISKS, 11)
def http_10(watched: Watched) -> Iterator[Reason]:
    """The answer is HTTP/1.0, or has no chunks: its end cannot be told from a cut.

    Source: RFC 9112, 6.3: without chunks or a length the body ends with the connection, and one that was cut short
    looks complete.
    """
    if watched.is_stream and watched.answer.version == "HTTP/1.0":
        yield NOTE, "the answer is HTTP/1.0: a cut stream looks like a finished one, and no connection is kept"
    elif watched.is_stream and watched.answer.length is not None:
        yield BREAKS, f"the stream has a Content-Length of {watched.answer.length}: it ends there"


@_enter(STREAM, "HW705", "silence", RISKS, 11)
def silence(watched: Watched) -> Iterator[Reason]:
    """No heartbeat: nothing is sent for longer than proxies wait.

    Source: WHATWG HTML, 9.2.7, "Authoring notes": "authors can include a comment line […] every 15 seconds or so"
    against legacy proxies that drop connections after a short time-out.
    """
    quiet = watched.longest_silence
    if not watched.is_stream or watched.answer.ended:
        return
    if quiet >= 30:
        yield RISKS, f"nothing came for {quiet:.0f} s: proxies end what is silent for 15, 30, 50 or 60 s"
    elif quiet >= watched.watched - 0.5:
        yield (
            NOTE,
            f"nothing came for {quiet:.0f} s, all the time it was watched; --patience 75 shows whether there is a"
            " heartbeat",
        )


@_enter(STREAM, "HW706", "cannot-be-resumed", RISKS, 13)
def no_ids(watched: Watched) -> Iterator[Reason]:
    """Events without ids: a client that reconnects cannot say where it was, and misses what was sent in between.

    Source: WHATWG HTML, 9.2.4: "The Last-Event-ID header" is sent if "the last event ID string" is not empty.
    """
    events = [
        event for event in watched.with_data if event.type not in ("heartbeat", "ping", "keepalive", "keep-alive")
    ]
    if watched.is_stream and events and not watched.ids:
        yield RISKS, f"{len(events)} events, none with an `id:`: what is sent while a client reconnects is lost to it"


@_enter(STREAM, "HW707", "no-retry", NOTE, 13)
def no_retry(watched: Watched) -> Iterator[Reason]:
    """No `retry:`: all clients of a pod reconnect after the same few seconds.

    Source: WHATWG HTML, 9.2.1: the reconnection time is "implementation-defined […] probably in the region of a few
    seconds".
    """
    if watched.is_stream and watched.events and not any(event.retry for event in watched.events):
        yield (
            NOTE,
            "no `retry:` was seen: all clients of a pod that ends reconnect after their browser's own few seconds",
        )


@_enter(STREAM, "HW708", "events-arrive-in-clumps", BREAKS, 11)
def clumps(watched: Watched) -> Iterator[Reason]:
    """Events arrive together although they were sent apart, by the times in them.

    Source: nginx, ngx_http_proxy_module, proxy_buffering; docs/failure-modes.md no. 11.
    """
    stamped = [(event.at + watched.wall, event.stamp) for event in watched.events if event.stamp is not None]
    # Those of the first second may be older than the connection.
    begun = watched.answer.asked + watched.wall
    late = [at - stamp for at, stamp in stamped if stamp is not None and stamp > begun]
    if len(late) >= 3 and max(late) - min(late) > _LATE:
        yield (
            BREAKS,
            f"events that were sent apart came together: the latest {max(late) - min(late):.1f} s later than the"
            " promptest, by their own times; something on the way collects them",
        )


def _cut(watched: Watched) -> tuple[float, float] | None:
    """Age and silence at the moment at which a stream was ended; None if it was not."""
    if not watched.is_stream or not watched.answer.ended:
        return None
    last = watched.arrivals[-1] if watched.arrivals else watched.answer.asked + watched.answer.head_seconds
    end = watched.answer.asked + watched.watched
    return watched.watched, end - last


@_enter(AGAIN, "HW711", "cut", BREAKS, 11)
def cut(first: Watched, second: Watched) -> Iterator[Reason]:
    """The stream was ended while it was watched: at a fixed age, after a silence, or once.

    Source: Go, net/http, Server.WriteTimeout; HAProxy, timeout server; nginx, proxy_read_timeout; docs/failure-modes.md
    no. 11.
    """
    one, two = _cut(first), _cut(second)
    if one is None:
        return
    how = {"torn": "torn, without its last chunk", "closed": "closed"}.get(first.answer.ended, "ended by the server")
    if two is not None and abs(one[1] - two[1]) < 0.5 and one[1] > 1.5:
        yield (
            BREAKS,
            f"{how} after {one[1]:.1f} s of silence, and again after {two[1]:.1f} s: an idle time-out; send a"
            " heartbeat more often",
        )
    elif two is not None and abs(one[0] - two[0]) < 0.75 and one[0] > 1.5:
        beats = f" although {len(first.arrivals)} pieces came" if len(first.arrivals) > 2 else ""
        yield (
            BREAKS,
            (
                f"{how} {one[0]:.1f} s after its begin, and again after {two[0]:.1f} s{beats}: a limit of the whole"
                " answer, such as a proxy's request time-out or WriteTimeout of a Go server"
            ),
        )
    elif first.answer.ended in ("torn",):
        yield BREAKS, f"{how} after {one[0]:.1f} s"
    else:
        yield RISKS, f"{how} after {one[0]:.1f} s"


@_enter(AGAIN, "HW712", "resume-is-not-honoured", RISKS, 13)
def resume(first: Watched, second: Watched) -> Iterator[Reason]:
    """A second connection with Last-Event-ID does not go on where the first one was.

    Source: WHATWG HTML, 9.2.4, "The Last-Event-ID header".
    """
    ids = first.ids
    if len(ids) < 2 or not second.is_stream:
        return
    got = second.ids
    missed = [id for id in ids[1:] if id not in got]
    if missed and len(missed) == len(ids) - 1:
        yield (
            RISKS,
            f"opened again with Last-Event-ID {ids[0]!r}, it sent none of the {len(missed)} events that followed it",
        )


@_enter(AGAIN, "HW713", "compression-holds-events-back", RISKS, 11)
def compression(first: Watched, second: Watched) -> Iterator[Reason]:
    """With Accept-Encoding: gzip the stream is compressed, and nothing of it can be read in time.

    Source: RFC 9110, 8.4.1.3; zlib manual, Z_SYNC_FLUSH: without a flush output waits "to maximize compression".
    """
    if second.answer.headers.get("content-encoding", "identity") in ("identity", "") or not first.arrivals:
        return
    yield from _readable(second)


def _readable(watched: Watched) -> Iterator[Reason]:
    if watched.answer.headers.get("content-encoding") == "gzip" and not watched.raw:
        yield (
            RISKS,
            "with Accept-Encoding: gzip nothing came, though the plain stream sent events: the compressor holds them"
            " back",
        )
    elif watched.raw and not zlib.decompressobj(wbits=31).decompress(watched.raw):
        yield RISKS, "with Accept-Encoding: gzip a head came and no event: the compressor waits until its block is full"


@_enter(WAYS, "HW721", "held-back-on-the-way", BREAKS, 11)
def held_back(through: Watched | None, direct: Watched) -> Iterator[Reason]:
    """Events arrive later, or not at all, through the ingress than from the pod itself.

    Source: docs/failure-modes.md no. 11: the first of pod, Service and ingress that is late is behind it.
    """
    if through is None:
        yield (
            BREAKS,
            f"the pod's head came after {direct.answer.head_seconds:.2f} s and {len(direct.with_data)} events after"
            " it; through the ingress not even a head came: something on the way waits until a buffer is full",
        )
        return
    if not (through.is_stream and direct.is_stream):
        return
    here = {_key(event): event.at for event in through.events if event.data is not None}
    both = [(event.at, here[_key(event)]) for event in direct.events if event.data is not None and _key(event) in here]
    late = [there - at for at, there in both]
    if len(late) >= 2 and max(late) > _LATE:
        yield (
            BREAKS,
            f"of {len(late)} events the latest came {max(late):.1f} s after the pod had sent it: something on the way"
            " collects them",
        )
    elif len(direct.with_data) >= 3 and not through.with_data and not through.answer.ended:
        yield (
            BREAKS,
            f"the pod sent {len(direct.with_data)} events, and none came through: something on the way collects them",
        )


def _key(event: Event) -> tuple[str | None, str | None]:
    return event.id, event.data


@_enter(WAYS, "HW722", "ended-on-the-way", BREAKS, 11)
def ended_on_the_way(through: Watched, direct: Watched) -> Iterator[Reason]:
    """The stream ends through the ingress, and goes on at the pod.

    Source: docs/failure-modes.md no. 11.
    """
    found = _cut(through)
    if found is not None and direct.is_stream and not direct.answer.ended:
        yield (
            BREAKS,
            (
                f"ended {found[0]:.1f} s after its begin and {found[1]:.1f} s after the last byte, while the same"
                " stream at the pod goes on: something on the way has a time-out"
            ),
        )


@_enter(PROBE, "HW731", "probe-fails", BREAKS, 3)
def probe_fails(probing: Probing) -> Iterator[Reason]:
    """The probe's route does not answer with success.

    Source: Kubernetes, "Configure Probes": "Any code greater than or equal to 200 and less than 400 indicates success."
    """
    wrong = [each.status for each in probing.alone if each.status is not None and not 200 <= each.status < 400]
    if wrong:
        yield BREAKS, f"status {wrong[0]}: the kubelet takes 200 to 399 for success"


@_enter(PROBE, "HW732", "probe-is-a-stream", BREAKS, 2)
def probe_is_a_stream(probing: Probing) -> Iterator[Reason]:
    """The probe's answer does not end.

    Source: kubernetes/kubernetes pkg/probe/http/http.go: the body is read to its end, or 10 KB.
    """
    if any(each.endless for each in probing.alone):
        yield (
            BREAKS,
            "the answer did not end within 2 s: the kubelet reads it to its end, so a readiness probe here never"
            " succeeds",
        )


@_enter(PROBE, "HW733", "slow-probe", RISKS, 7)
def slow_probe(probing: Probing) -> Iterator[Reason]:
    """The probe is slow, even alone.

    Source: Kubernetes, "Configure Probes", timeoutSeconds: "Defaults to 1 second".
    """
    times = [each.seconds for each in probing.alone if each.status is not None and not each.endless]
    if times and max(times) > 0.5:
        yield (
            RISKS,
            f"alone it took up to {max(times):.2f} s (median {statistics.median(times):.2f} s); the default time-out"
            " is 1 s",
        )


@_enter(PROBE, "HW734", "streams-starve-the-probe", BREAKS, 1)
def streams_starve_the_probe(probing: Probing) -> Iterator[Reason]:
    """Beside open streams the probe no longer answers, or much later.

    Source: docs/failure-modes.md no. 1: a pool that streams fill answers no probe.
    """
    if not probing.beside or not probing.alone or any(each.endless for each in probing.alone):
        return
    silent = [each for each in probing.beside if each.status is None]
    if silent and all(each.status is not None for each in probing.alone):
        yield (
            BREAKS,
            (
                f"beside {probing.streams} streams ({probing.answered} of which were answered) {len(silent)} of"
                f" {len(probing.beside)} probes had no answer within 2 s; alone all had: streams fill the pool that"
                " answers probes"
            ),
        )
        return
    alone = statistics.median(each.seconds for each in probing.alone)
    beside = statistics.median(each.seconds for each in probing.beside)
    if beside > 0.5 and beside > 5 * alone:
        yield RISKS, f"beside {probing.streams} streams it takes {beside:.2f} s, alone {alone:.3f} s"


@_enter(PROBE, "HW735", "wrong-length", RISKS, 4)
def wrong_length(probing: Probing) -> Iterator[Reason]:
    """The probe's answer is longer or shorter than its Content-Length.

    Source: RFC 9112, 6.3: extra bytes are read as the next answer; missing bytes make the answer incomplete.
    """
    for each in probing.alone:
        if each.surplus or each.ended == "torn":
            what = f"{each.surplus} bytes too many" if each.surplus else "it ended early"
            yield RISKS, f"Content-Length {each.length} is wrong: {what}"
            return


@_enter(PROBE, "HW736", "kept-connection", NOTE, 4)
def kept_connection(probing: Probing) -> Iterator[Reason]:
    """The probe's connection is kept open by the server.

    Source: docs/failure-modes.md no. 4, 5: a kept connection holds a place of a pool, and may be closed at the moment
    of the next request.
    """
    if probing.alone and all(each.kept for each in probing.alone):
        yield (
            NOTE,
            "the server keeps the connection after the answer; a client that asks often (a load balancer) holds"
            " places of its pool",
        )
