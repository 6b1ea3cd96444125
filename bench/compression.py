"""What shared compression saves and costs: `python -m bench.compression`, four minutes.

    bytes    JSON events of 150 bytes, published one by one: bytes on the wire of a stream that has been there for a
             while, and of streams that have just joined, over those of a stream without gzip
    cpu      the server's CPU time for an event to 1,000 streams with gzip, over that without, in turns
    memory   what 10,000 idle streams with gzip take more than 10,000 without, in turns

`--write` writes the section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import random
import resource
import select
import socket
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from bench import sections
from bench.measure import cpu_seconds, memory, settled
from bench.peers.base import Running
from bench.peers.headwater import Headwater
from bench.tables import table

BARS = {"inside": 0.30, "joined": 0.85, "cpu": 1.3, "memory": 100.0}
OPENED_AT_ONCE = 200
DATA_BYTES = 150
EPOCH = 200  # events until a stream has been there for an epoch
PACED = 0.01  # seconds between two events, so that each has a pass of its own


class Size(NamedTuple):
    """How much is measured."""

    events: int  # for bytes
    rounds: int  # of cpu
    streams: int  # of cpu
    events_a_round: int
    memory_rounds: int
    idle: int  # streams of memory


FULL, SHORT = Size(500, 10, 1000, 100, 3, 10_000), Size(200, 4, 300, 40, 1, 2000)


class Measured(NamedTuple):
    """One figure, beside its bar."""

    name: str
    bar: str
    value: str
    rounds: str
    holds: bool


def event(draw: random.Random, number: int) -> str:
    """Return the data of an event that happens now: an order as JSON."""
    order = {
        "order": 4_711_000 + number,
        "customer": f"c{draw.randrange(10**6)}",
        "status": draw.choice(["new", "paid", "shipped"]),
        "total": draw.randrange(10**5) / 100,
        "currency": draw.choice(["EUR", "USD"]),
        "at": time.time_ns() // 1_000_000,
        "items": [draw.randrange(10**4)],
    }
    text = json.dumps(order, separators=(",", ":"))
    return text[:-1] + ',"note":"' + "to be picked up at the counter"[: DATA_BYTES - len(text) - 10] + '"}'


class Stream:
    """A stream on a raw socket, which counts what follows its opening."""

    def __init__(self, port: int, channel: str, *, gzip: bool) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        coding = "Accept-Encoding: gzip\r\n" if gzip else ""
        self.socket.sendall(f"GET /events/{channel} HTTP/1.1\r\nHost: localhost\r\n{coding}\r\n".encode())
        self.gzip, self.received = gzip, 0

    def opened(self) -> Stream:
        """Read the head and the opening, one chunk."""
        got = b""
        while got.count(b"\r\n\r\n") < 1 or not got.partition(b"\r\n\r\n")[2].endswith(b"\r\n"):
            piece = self.socket.recv(4096)
            if not piece:
                raise ConnectionError(f"no stream: {got[:100]!r}")
            got += piece
        if (b"Content-Encoding: gzip" in got) != self.gzip:
            raise ConnectionError(f"another coding than asked for: {got[:400]!r}")
        self.socket.setblocking(False)
        return self

    def read(self) -> int:
        """Read what is there; return its bytes."""
        try:
            size = len(self.socket.recv(262_144))
        except BlockingIOError:
            return 0
        self.received += size
        return size

    def next(self) -> int:
        """Wait for more, and return its bytes."""
        if not select.select([self.socket], [], [], 10)[0]:
            raise TimeoutError("an event does not arrive")
        return self.read()


def open_streams(port: int, channel: str, count: int, *, gzip: bool) -> list[Stream]:
    """Open streams, some at once; return when all have their opening."""
    streams: list[Stream] = []
    while len(streams) < count:
        number = min(OPENED_AT_ONCE, count - len(streams))
        some = [Stream(port, channel, gzip=gzip) for _ in range(number)]
        streams += [one.opened() for one in some]
    return streams


class Publisher:
    """Publishes on one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def publish(self, channel: str, data: str) -> None:
        self._connection.request("POST", f"/events/{channel}", data)
        answer = self._connection.getresponse()
        assert answer.read() and answer.status == 201, answer.status

    def close(self) -> None:
        self._connection.close()


def wire_bytes(size: Size) -> list[Measured]:
    """Publish events one by one, each to three streams: without gzip, long there, and just joined."""
    draw = random.Random(1)
    plain, inside, joined = [], [], []
    with Headwater().started(0) as running:
        publisher = Publisher(running.port)
        # The crowd keeps one that has just joined from being enough for a new epoch.
        old, *crowd = open_streams(running.port, "a", 10, gzip=True)
        (usual,) = open_streams(running.port, "a", 1, gzip=False)
        for number in range(size.events):
            (new,) = open_streams(running.port, "a", 1, gzip=True)
            publisher.publish("a", event(draw, number))
            sizes = usual.next(), old.next(), new.next()
            if number >= min(EPOCH, size.events // 2):
                plain.append(sizes[0])
                inside.append(sizes[1])
                joined.append(sizes[2])
            new.socket.close()
            for each in crowd:
                each.next()
        publisher.close()
    first = [one / other for one, other in zip(joined, plain, strict=True)]
    waiting = [ratio for ratio in first if ratio > 0.6]  # the others came as an epoch began
    share = sum(inside) / sum(plain)
    alone = statistics.mean(waiting)
    count = f"{len(plain)} events"
    return [
        Measured(
            "bytes, a stream that has been there",
            f"≤ {BARS['inside']:.2f}",
            f"{share:.3f}",
            count,
            share <= BARS["inside"],
        ),
        Measured(
            "bytes, one that has just joined", f"≤ {BARS['joined']:.2f}", f"{alone:.3f}", count, alone <= BARS["joined"]
        ),
    ]


def cpu(size: Size) -> list[Measured]:
    """Publish to streams with and without gzip, in turns, on one server."""
    draw = random.Random(2)
    with Headwater().started(2 * size.streams) as running:
        groups = {gzip: open_streams(running.port, f"c{int(gzip)}", size.streams, gzip=gzip) for gzip in (False, True)}
        publisher = Publisher(running.port)
        used: dict[bool, list[float]] = {False: [], True: []}
        for number in range(-1, size.rounds):  # the first round is not counted
            for gzip in (False, True) if number % 2 else (True, False):
                began = cpu_seconds(running.pids())
                for count in range(size.events_a_round):
                    publisher.publish(f"c{int(gzip)}", event(draw, count))
                    time.sleep(PACED)
                last = groups[gzip][-1]
                while last.read():
                    pass
                for one in groups[gzip]:
                    while one.read():
                        pass
                if number >= 0:
                    used[gzip].append(cpu_seconds(running.pids()) - began)
        publisher.close()
    ratios = sorted(one / other for one, other in zip(used[True], used[False], strict=True))
    ratio = sum(used[True]) / sum(used[False])
    each = {gzip: 1e3 * sum(used[gzip]) / (size.rounds * size.events_a_round) for gzip in used}
    value = f"{ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}; {each[True]:.2f} over {each[False]:.2f} ms an event)"
    return [
        Measured(
            f"CPU time of an event to {size.streams:,} streams",
            f"≤ {BARS['cpu']}",
            value,
            str(size.rounds),
            ratio <= BARS["cpu"],
        )
    ]


def idle_memory(size: Size) -> list[Measured]:
    """Open idle streams with and without gzip, in turns, each time on a new server."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    taken: dict[bool, list[float]] = {False: [], True: []}
    for number in range(size.memory_rounds):
        for gzip in (False, True) if number % 2 else (True, False):
            with Headwater().started(size.idle) as running:
                taken[gzip].append(_memory_of(running, size.idle, gzip=gzip))
            gc.collect()
    more = [one - other for one, other in zip(taken[True], taken[False], strict=True)]
    usual = statistics.median(taken[False])
    value = f"{statistics.median(more):.0f} ({min(more):.0f} to {max(more):.0f}; {usual:.0f} without gzip)"
    bar = statistics.median(more) <= BARS["memory"]
    return [
        Measured(
            "bytes of memory more for an idle stream", f"≤ {BARS['memory']:.0f}", value, str(size.memory_rounds), bar
        )
    ]


def _memory_of(running: Running, count: int, *, gzip: bool) -> float:
    """Return the server's RSS for one of so many streams, after some opened and closed before."""
    for one in open_streams(running.port, "a", OPENED_AT_ONCE, gzip=gzip):
        one.socket.close()
    before = settled(lambda: memory(running.pids()).rss)
    streams = open_streams(running.port, "a", count, gzip=gzip)
    after = settled(lambda: memory(running.pids()).rss)
    for one in streams:
        one.socket.close()
    return (after - before) / count


HEAD = """\
## Compression

    .venv/bin/python -m bench.compression      four minutes; --write writes this section

Measured on {date}, load average {load:.1f}. All ratios are over the same without gzip. Bytes are those of HTTP's body,
with the lengths of its chunks.
"""
WHAT = {"bytes": wire_bytes, "cpu": cpu, "memory": idle_memory}


def rows_of(measured: Sequence[Measured]) -> list[list[str]]:
    """Return the rows of the table."""
    return [[one.name, one.bar, one.value, one.rounds, "yes" if one.holds else "**no**"] for one in measured]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.compression", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], help="all if omitted")
    parser.add_argument("--short", action="store_true", help="fewer rounds and streams: half a minute")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    if options.write and options.what:
        parser.error("--write needs all of it")
    head = HEAD.format(date=time.strftime("%Y-%m-%d", time.gmtime()), load=os.getloadavg()[0])
    measured: list[Measured] = []
    for name in options.what or WHAT:
        found = WHAT[name](SHORT if options.short else FULL)
        for one in found:
            print(*one, sep=" | ", flush=True)
        measured += found
    text = f"{head}\n{table(['what', 'bar', 'measured', 'rounds', 'holds'], rows_of(measured))}"
    if options.write:
        sections.write("compression", text)


if __name__ == "__main__":
    main()
