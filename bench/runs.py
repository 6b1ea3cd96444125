"""What a run costs beside ``sse.response``: ``python -m bench.runs``.

One worker makes a model's tokens for many streams, each at a fixed rate and with one reader. Both ways, and the tokens
alone, are measured in turns, several rounds of them, so that another load of the machine falls on all of them alike;
each figure is the median of its rounds. The load generator reads all streams on the other core, checks that no token is
missing or there twice, and takes the time from the making of a token to its arrival. ``--write`` writes the section of
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import load, sections
from bench.peers.base import free_port
from bench.tables import table

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
WAYS = ("nothing", "response", "run")
TITLES = {"nothing": "the tokens alone", "response": "`sse.response`", "run": "`sse.run`"}


class Figures(NamedTuple):
    """One measurement.

    held: the part of the tokens that arrived in time; busy: how much of a core the worker used; cpu: µs of it for each
    token; p50, p99: ms from the making of a token to its arrival; wire, disk: bytes for each token.
    """

    held: float
    busy: float
    cpu: float
    p50: float
    p99: float
    wire: float
    disk: float


@contextlib.contextmanager
def serving(rate: float, size: int, log: str, directory: Path) -> Iterator[tuple[int, int]]:
    """Run the service with one worker; yield its port and the worker's process id."""
    port, health = free_port(), free_port()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SSE_", "HEALTH_", "LOG_"))},
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "HEALTH_PORT": str(health),
        "WEB_CONCURRENCY": "1",
        "SSE_LOG": f"sqlite:///{directory}/log.db" if log == "sqlite" else log,
        "SSE_MAX_RUNS": "100000",
        "SSE_DRAIN_DELAY": "0",
        "SSE_DRAIN_WINDOW": "0",
        "LOG_LEVEL": "error",
        "BENCH_RATE": str(rate),
        "BENCH_SIZE": str(size),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "bench.runs_app:app"]
    with subprocess.Popen(command, cwd=ROOT, env=env) as master:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{health}/startupz", timeout=2).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text()
            yield port, int(children.split()[0])
        finally:
            master.terminate()
            try:
                master.wait(10)
            except subprocess.TimeoutExpired:
                for pid in Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split():
                    os.kill(int(pid), 9)
                master.kill()


def measure(way: str, streams: int, options: argparse.Namespace) -> Figures:
    """Measure one way of streaming, in a process and a log of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        with serving(options.rate, options.size, options.log, Path(name)) as (port, worker):
            result: dict[str, Any] = load.run(
                [
                    *("--port", str(port), "--streams", str(streams), "--channels", str(streams), "--zipf", "0"),
                    *("--path", f"/{way}/{{channel}}", "--publish", "none", "--size", str(options.size)),
                    *("--warmup", str(options.warmup), "--seconds", str(options.seconds), "--watch", str(worker)),
                    *("--sleep", "1", "--settle", "0"),
                ],
                timeout=180,
            )
        disk = _disk(Path(name) / "log.db") if way == "run" else 0.0
    wrong = {name: result[name] for name in ("gaps", "duplicates", "reordered", "broken", "resets") if result[name]}
    if wrong or result["opened"] < streams:
        raise SystemExit(f"{way}, {streams} streams: {result['opened']} opened, {wrong}")
    if result["generator_saturated"]:
        raise SystemExit(f"{way}, {streams} streams: the load generator could not keep up")
    made = streams * options.rate
    arrived = result["events_per_second"] if way != "nothing" else made
    latency = result["latency_us"]
    return Figures(
        held=arrived / made,
        busy=result["server_cpu"],
        cpu=result["server_cpu"] / arrived * 1e6,
        p50=latency["p50"] / 1000,
        p99=latency["p99"] / 1000,
        wire=result["bytes_per_second"] / arrived,
        disk=disk,
    )


def _disk(path: Path) -> float:
    """Return the size of an SQLite log for each of its records; 0 without one. The service has ended."""
    if not path.exists():
        return 0.0
    with contextlib.closing(sqlite3.connect(path)) as database:
        (records,) = database.execute("SELECT count(*) FROM events").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size / max(records, 1)


HEAD = ["streams", "", "arrived in time", "a core", "µs a token", "p50 ms", "p99 ms", "bytes sent", "on disk"]

ABOUT = """\
## Runs beside responses

    .venv/bin/python -m bench.runs      six minutes; --write writes this section

One worker makes a model's tokens for many streams, {rate:g} a second for each, {size} bytes, each with one reader; the
log is {log}. [runs.md](runs.md#what-it-costs) says what follows from it. Medians of {rounds} in turns,
{seconds:g} s each, on {date}, load average {load:.1f}. A run takes the CPU time of a response times: {ratios}.
"""


def rows_of(streams: int, rounds: Sequence[dict[str, Figures]]) -> list[list[str]]:
    """Return the rows of the table for so many streams: the median of each figure, for each way."""
    rows = []
    for way in WAYS:
        middle = Figures(*(statistics.median(values) for values in zip(*(one[way] for one in rounds), strict=True)))
        told = [f"{middle.busy:.0%}", f"{middle.cpu:.0f}"]
        if way == "nothing":
            told = ["", *told, "", "", "", ""]
        else:
            told = [f"{middle.held:.0%}", *told, f"{middle.p50:.1f}", f"{middle.p99:.0f}", f"{middle.wire:.0f}"]
            told.append(f"{middle.disk:.0f}" if middle.disk else "")
        rows.append([f"{streams:,}", TITLES[way], *told])
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.runs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[20, 100, 400, 1000], help="how many at once")
    parser.add_argument("--rate", type=float, default=50, help="tokens a second of each stream")
    parser.add_argument("--size", type=int, default=64, help="bytes of a token's data")
    parser.add_argument("--log", default="sqlite", help="sqlite, or a value of SSE_LOG")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--warmup", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    rows, ratios = [], []
    for streams in options.streams:
        rounds = [{way: measure(way, streams, options) for way in WAYS} for _ in range(options.rounds)]
        rows += rows_of(streams, rounds)
        each = [one["run"].cpu / one["response"].cpu for one in rounds]
        ratios.append(f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) with {streams:,} streams")
        for one in rows[-len(WAYS) :]:
            print(" | ".join(one), flush=True)
    about = ABOUT.format(
        rate=options.rate,
        size=options.size,
        seconds=options.seconds,
        log="SQLite" if options.log == "sqlite" else options.log,
        rounds=f"{options.rounds} round{'s' if options.rounds > 1 else ''}",
        ratios=", ".join(ratios),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        load=os.getloadavg()[0],
    )
    *heading, prose = about.rstrip().split("\n\n")
    text = "\n\n".join([*heading, textwrap.fill(prose, WIDTH, break_on_hyphens=False), table(HEAD, rows)])
    print(f"\n{text}")
    if options.write:
        sections.write("runs", text)


if __name__ == "__main__":
    main()
