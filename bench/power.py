"""What ?sync=full costs: publishes a second and their p99, on 1 and on 16 connections, beside a bare fsync.

    python -m bench.power            three minutes; --write writes the section of docs/benchmarks.md

Each way is measured in each round, in turns, there and back (A B C D, D C B A), in a process and a log of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import load, sections
from bench.peers.base import Command, free_port
from bench.peers.headwater import Headwater
from bench.tables import table

CONNECTIONS: Final = (1, 16)
WIDTH: Final = 119


class Way(NamedTuple):
    """A log, with its option or without."""

    title: str
    log: str
    sync: bool
    policy: str = ""


WAYS: Final = (
    Way("SQLite", "sqlite", False),
    Way("SQLite, `?sync=full`", "sqlite", True),
    Way("Redis, `appendfsync everysec`", "redis", False, "everysec"),
    Way("Redis, `?sync=full` (`appendfsync always`)", "redis", True, "always"),
)


class Figures(NamedTuple):
    """rate: acknowledged a second. p50, p99: of a publish, ms. cpu: of the service, µs a publish."""

    rate: float
    p50: float
    p99: float
    cpu: float


class Server(Headwater):
    """Headwater with one worker, and a Valkey that writes its append-only file."""

    def __init__(self, way: Way) -> None:
        super().__init__(way.log, syncs=way.sync)
        self._way = way

    def prepare(self) -> None:
        pass

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        (*_, server) = super().commands(port, folder, streams)
        if self._way.log == "sqlite":
            return [server]
        redis_port = free_port()
        option = "?sync=full" if self._way.sync else ""
        env = {**server.env, "SSE_LOG": f"redis://127.0.0.1:{redis_port}/0{option}"}
        argv = [valkey(), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        argv += ["--appendonly", "yes", "--appendfsync", self._way.policy]
        return [Command(argv), Command(server.argv, env, server.cwd)]


def valkey() -> str:
    """Return the path of the Valkey that the tests use; fetch it if need be."""
    os.environ["CI"] = "true"  # fetches rather than skips
    from tests.support.valkey import valkey_server

    return valkey_server()


def measure(way: Way, connections: int, seconds: float) -> Figures:
    """Publish on so many connections, one event after the other on each."""
    with Server(way).started(0) as running:
        arguments = [*running.arguments("power"), "--streams=0", "--publish=closed", f"--publishers={connections}"]
        result: dict[str, Any] = load.run([*arguments, "--warmup=0.5", f"--seconds={seconds}"], seconds + 60)
    if result["publish_failed"] or result["publish_refused"]:
        raise load.LoadFailed(f"{way.title}: a publish failed: {result}")
    rate, latency = result["publishes_per_second"], result["publish_latency_us"]
    return Figures(rate, latency["p50"] / 1000, latency["p99"] / 1000, result["server_cpu"] / rate * 1e6)


def bare_sync(number: int = 200) -> list[float]:
    """Append 4 KiB and fdatasync, again and again, where the logs are; return how long each sync took, ms."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(number):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - begun) * 1000)
    return sorted(took)


def disk() -> str:
    """Return the file system and device of the temporary directory."""
    best = ("", "unknown", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind, *_ = line.split()
        if f"{tempfile.gettempdir()}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(best[0]):
            best = (point, kind, device)
    return f"{best[1]} on {best[2]}"


HEAD = ["", "connections", "publishes/s", "lowest to highest", "p50 ms", "p99 ms", "CPU µs", "of the default's rate"]

ABOUT = """\
## What a sync costs

    .venv/bin/python -m bench.power     three minutes; --write writes this section

One worker, no streams; each connection publishes one event of 100 bytes after the other. With `?sync=full` it is
acknowledged after an fsync: see [durability.md](durability.md). The disk is a virtual one ({disk}), whose host may
keep what it acknowledges in a cache: a bare append of 4 KiB with fdatasync took {p50:.2f} ms (p99 {p99:.1f} ms),
measured between the rounds. Other disks give other figures: on one connection a publish takes the fsync longer; on
more, publishers share it. CPU is the service's, Redis included. Redis is Valkey 9.1. Medians of {rounds} rounds in
turns, {seconds:g} s each, on {date}, load average {load:.1f}.
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.power", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    cases = [(way, connections) for way in WAYS for connections in CONNECTIONS]
    found: dict[tuple[Way, int], list[Figures]] = {case: [] for case in cases}
    syncs: list[float] = []
    for number in range(options.rounds):
        syncs += bare_sync()
        for case in cases if number % 2 == 0 else reversed(cases):
            found[case].append(measure(*case, options.seconds))
            print(case[0].title, case[1], *(f"{value:.2f}" for value in found[case][-1]), flush=True)
    syncs.sort()
    rows = []
    for number, (way, connections) in enumerate(cases):
        each = found[way, connections]
        middle = Figures(*(statistics.median(values) for values in zip(*each, strict=True)))
        spread = f"{min(one.rate for one in each):,.0f} to {max(one.rate for one in each):,.0f}"
        ratios = [one.rate / other.rate for one, other in zip(each, found[cases[number - 2]], strict=True)]
        against = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if way.sync else ""
        told = [f"{middle.rate:,.0f}", spread, f"{middle.p50:.2f}", f"{middle.p99:.1f}", f"{middle.cpu:.0f}", against]
        rows.append([way.title, str(connections), *told])
    about = ABOUT.format(
        disk=disk(),
        p50=statistics.median(syncs),
        p99=syncs[len(syncs) * 99 // 100],
        rounds=options.rounds,
        seconds=options.seconds,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        load=os.getloadavg()[0],
    )
    *heading, prose = about.rstrip().split("\n\n")
    text = "\n\n".join([*heading, textwrap.fill(prose, WIDTH, break_on_hyphens=False), table(HEAD, rows)])
    print(f"\n{text}")
    if options.write:
        sections.write("power", text)


if __name__ == "__main__":
    main()
