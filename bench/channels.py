"""What channels cost: `python -m bench.channels`, three minutes.

    patterns    dispatching an event that nobody listens to, with 10,000 open patterns over none, in turns
    revoke      10,000 streams of one subject on two workers, until the last has ended, and the event loops' lag
    list        100,000 channels over HTTP, page by page, in each engine

`python -m bench.channels revoke` runs only that. Client and server share the cores, so times are upper bounds.
`--write` writes the section of docs/benchmarks.md, and needs all three.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import resource
import select
import socket
import statistics
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from bench import sections
from bench.measure import cpu_seconds
from bench.peers.base import Command, Running
from bench.peers.headwater import Headwater
from bench.probing import quantile
from bench.tables import table
from sse.events.model import Record
from sse.log import open_log
from sse.settings import Settings
from sse.streams.group import Subscription
from sse.streams.hub import Hub
from sse.streams.stats import Stats


class Size(NamedTuple):
    """How much is measured."""

    rounds: int  # of patterns
    streams: int  # of the subject that is revoked
    channels: int  # to list


WIDTH = 120
FULL, SHORT = Size(15, 10_000, 100_000), Size(5, 2000, 20_000)
PATTERNS = 10_000
EVENTS_A_ROUND = 5000
OPENED_AT_ONCE = 200
LAG_REMEMBERED = 11.0  # seconds; health_loop_lag_seconds looks back over ten
BEAT = 2.0  # seconds until the workers' lag has reached /metrics
A_BATCH = 5000
SECRET = "a key that only this benchmark uses, of 32 bytes or more"


# ── patterns ──────────────────────────────────────────────────────────────────────────────────────────────────


def patterns(size: Size) -> str:
    """Dispatch events of a channel without listeners in three hubs, in turns."""
    hubs = {
        "none": _hub([]),
        "of one length": _hub([f"tenant:{number:05}:*" for number in range(PATTERNS)]),
        "of 122 lengths": _hub([f"{number:05}".ljust(5 + number % 122, ".") + "*" for number in range(PATTERNS)]),
    }
    took: dict[str, list[float]] = {name: [] for name in hubs}
    position = 1
    gc.disable()
    for number in range(size.rounds):
        for name in sorted(hubs, reverse=bool(number % 2)):
            records = [[Record(position + n, "orders:eu", None, None, "x" * 100)] for n in range(EVENTS_A_ROUND)]
            position += EVENTS_A_ROUND
            dispatch = hubs[name].dispatch
            began = time.process_time()
            for batch in records:
                dispatch(batch)
            took[name].append((time.process_time() - began) / EVENTS_A_ROUND)
            gc.collect()
    gc.enable()
    none, one, many = (1e6 * statistics.median(each) for each in took.values())
    return (
        f"**Publishing beside {PATTERNS:,} open patterns.** Dispatching an event that nobody listens to takes "
        f"{_ratio(took['of one length'], took['none'])} as long as without patterns: "
        f"{one:.1f} instead of {none:.1f} µs. "
        "With prefixes of 122 different lengths, which only an attacker would choose, it is "
        f"{_ratio(took['of 122 lengths'], took['none'])}: {many:.1f} µs. ({size.rounds} rounds in turns.)"
    )


def _ratio(some: list[float], others: list[float]) -> str:
    ratios = [one / other for one, other in zip(some, others, strict=True)]
    return f"{statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"


def _hub(selectors: Sequence[str]) -> Hub:
    """Make a hub with a stream of each selector, which follows no log."""
    hub = Hub(open_log("memory:", retain_events=1, retain_seconds=1), Settings(), Stats())
    for selector in selectors:
        hub.join(Subscription(frozenset([selector])))
    return hub


# ── revoke ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tokens(Headwater):
    """Two workers that ask for tokens and write an access log, as in production."""

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        *helpers, server = super().commands(port, folder, streams)
        return [*helpers, Command(server.argv, {**server.env, "SSE_JWT_KEY": SECRET, "LOG_LEVEL": "info"}, server.cwd)]


def revoke(size: Size) -> str:
    """Open the streams, revoke their subject, and wait for the last end."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with _Tokens(workers=2).started(size.streams) as running:
        sockets = _open_streams(running.port, size.streams)
        time.sleep(LAG_REMEMBERED)
        before, streams = _lags(running), _streams(running)
        used = cpu_seconds(running.pids())
        began = time.monotonic()
        status = _ask(running.port, "DELETE", "/streams?subject=alice", headers=_bearer("admin", manage=["*"]))[0]
        assert status == 202, status
        answered = time.monotonic() - began
        ended, clean = _wait_for_ends(sockets, began)
        used = cpu_seconds(running.pids()) - used
        time.sleep(BEAT)
        after = _lags(running)
        again = _ask(running.port, "GET", "/events/a", headers=_bearer("alice", subscribe=["*"]))[0]
    half, last, least, most = (
        f"{1e3 * seconds:.0f} ms" for seconds in (quantile(ended, 0.5), max(ended), max(before), max(after))
    )
    assert again == 401, again
    return (
        f"**Revoking a subject with {size.streams:,} streams on two workers** ("
        f"{' and '.join(f'{count:,}' for count in streams)} sockets). The request is answered after "
        f"{1e3 * answered:.0f} ms. Half of the streams have ended after {half}, the last one after {last}; "
        f"{clean:,} of them cleanly. That takes the workers {used:.2f} s of CPU time in all, access log included. The "
        f"longest lag of an event loop is {most}; before, without any work, it was {least}."
    )


def _bearer(subject: str, **lists: list[str]) -> dict[str, str]:
    now = int(time.time())
    claims = {"sub": subject, "iat": now - 60, "exp": now + 3600, "sse": lists}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}


def _open_streams(port: int, count: int) -> list[socket.socket]:
    """Open streams, so many at once; return when all have their opening."""
    (authorization,) = _bearer("alice", subscribe=["*"]).values()
    request = f"GET /events/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n".encode()
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        number = min(OPENED_AT_ONCE, count - len(sockets))
        some = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(number)]
        for one in some:
            one.sendall(request)
        for one in some:
            head = b""
            while b"\nretry:" not in head:
                piece = one.recv(4096)
                head += piece
                if not piece or not head.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(f"no stream: {head[:100]!r}")
        sockets += some
    return sockets


def _wait_for_ends(sockets: list[socket.socket], began: float) -> tuple[list[float], int]:
    """Return when each stream ended, seconds since ``began``, and how many ended cleanly."""
    poll = select.epoll()
    open_ones = {one.fileno(): one for one in sockets}
    tails = dict.fromkeys(open_ones, b"")
    for fd in open_ones:
        poll.register(fd, select.EPOLLIN)
    ended, clean = [], 0
    while open_ones:
        for fd, _ in poll.poll(30, 1024) or _give_up(f"{len(open_ones)} streams do not end"):
            piece = open_ones[fd].recv(65536)
            tails[fd] = (tails[fd] + piece)[-5:]
            is_clean = tails[fd] == b"0\r\n\r\n"  # the chunk that ends a chunked body
            if is_clean or not piece:
                clean += is_clean
                ended.append(time.monotonic() - began)
                poll.unregister(fd)
                open_ones.pop(fd).close()
    poll.close()
    return ended, clean


def _give_up(message: str) -> list[tuple[int, int]]:
    raise TimeoutError(message)


def _streams(running: Running) -> list[int]:
    """Return how many sockets each worker has: its streams, and a few of its own."""
    sockets = []
    for pid in running.pids():
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd") if name.isdecimal()]
        sockets.append(sum(link.startswith("socket:") for link in links))
    return sorted(sockets)[-2:]


def _lags(running: Running) -> list[float]:
    """Return each worker's longest event-loop lag of the last ten seconds."""
    assert running.health_port is not None
    _, body = _ask(running.health_port, "GET", "/metrics")
    return [
        float(line.split()[-1]) for line in body.decode().splitlines() if line.startswith("health_loop_lag_seconds{")
    ]


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────


def listing(size: Size) -> str:
    """List a log of many channels, and after each page one of 1,000 for comparison, in each engine."""
    rows = []
    for engine in ("sqlite", "redis", "memory"):
        with Headwater(engine).started(0) as small, Headwater(engine).started(0) as large:
            _publish(small.port, 1000)
            _publish(large.port, size.channels)
            first = sum(_list(large.port, size.channels, lambda: _page(small.port))[0])
            many, few = _list(large.port, size.channels, lambda: _page(small.port))
        ratio = statistics.median(many) / statistics.median(few)
        rows.append(
            [
                {"sqlite": "SQLite", "redis": "Redis", "memory": "memory"}[engine],
                f"{sum(many):.1f} s",
                f"{1e3 * statistics.median(many):.0f} ms",
                f"{1e3 * max(many):.0f} ms",
                f"{first:.1f} s",
                f"{ratio:.2f} ×",
            ]
        )
    head = ["log", "all pages", "a page, median", "at most", "all pages just after they were published"]
    return (
        f"**Listing {size.channels:,} channels over HTTP**, 1,000 a page, once. The last column compares a page with\n"
        "that of a log that has only 1,000 channels.\n\n" + table([*head, "page over page"], rows)
    )


def _publish(port: int, count: int) -> None:
    """Publish one event to each of so many channels."""
    for begin in range(0, count, A_BATCH):
        numbers = range(begin, min(begin + A_BATCH, count))
        body = "".join(f'{{"channel":"channel:{number}","data":"{"x" * 100}"}}\n' for number in numbers)
        status, said = _ask(port, "POST", "/events", body, {"Content-Type": "application/x-ndjson"})
        assert status == 201, said[:200]


def _list(port: int, expected: int, between: Callable[[], object]) -> tuple[list[float], list[float]]:
    """List all channels, and call ``between`` after each page; return what both took each time, seconds."""
    took: tuple[list[float], list[float]] = ([], [])
    names, after = 0, ""
    while True:
        began = time.monotonic()
        page = _page(port, after)
        took[0].append(time.monotonic() - began)
        began = time.monotonic()
        between()
        took[1].append(time.monotonic() - began)
        names += len(page["channels"])
        if page["next"] is None:
            assert names == expected, f"{names} channels instead of {expected}"
            return took
        after = page["next"]


def _page(port: int, after: str = "") -> dict[str, Any]:
    status, body = _ask(port, "GET", f"/channels?limit=1000{after and f'&after={after}'}")
    assert status == 200, body[:200]
    page: dict[str, Any] = json.loads(body)
    return page


def _ask(
    port: int, method: str, target: str, body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


WHAT: dict[str, Callable[[Size], str]] = {"patterns": patterns, "revoke": revoke, "list": listing}

HEAD = """\
## Channels

    .venv/bin/python -m bench.channels                         three minutes; --write writes this section
    .venv/bin/python -m bench.channels patterns revoke list    or only some of them

Measured on {date}, load average {load:.1f}. Client and server share the cores: times are upper bounds, ratios compare
two sides that took turns.
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.channels", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], help="all if omitted")
    parser.add_argument("--short", action="store_true", help="fewer rounds, streams and channels: one minute")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    if options.write and options.what:
        parser.error("--write needs all of it")
    text = HEAD.format(date=time.strftime("%Y-%m-%d", time.gmtime()), load=os.getloadavg()[0])
    for name in options.what or WHAT:
        part = WHAT[name](SHORT if options.short else FULL)
        part = part if part.endswith("|\n") else textwrap.fill(part, WIDTH, break_on_hyphens=False)
        print(f"{part}\n", flush=True)
        text += f"\n{part}\n"
    if options.write:
        sections.write("channels", text)


if __name__ == "__main__":
    main()
