"""What an event costs a worker that has no stream for it: ``python -m bench.followers``, for docs/benchmarks.md.

Each worker reads every event of the log. Here each has ten streams of one channel, while another process appends events
to 200 other channels at a fixed rate. The CPU time of the workers, without what they take when nothing is published, is
divided by the events and the workers. From that follows at how many events a second a worker is busy: a whole core.

``--against TREE`` compares with another checkout of the repository: both are measured in turns (A B B A …), and the
table has the ratio. ``--listened`` publishes to the streams' own channel instead, which is the price of events that are
wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench import sections
from bench.peers.base import free_port
from bench.peers.redis_server import redis_command
from sse.events.batch import make_events
from sse.log import Log, open_log

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 120
STREAMS = 10
MINE = "mine"
OTHERS = 200  # channels that no stream reads
IDLE_SECONDS = 1.0
# The log's upkeep is the work of one process, whatever the number of followers. So the publisher's does it here: it has
# the lock (SQLite) or claims the work (Redis) before the workers start. And all events of a run are kept.
RETAINED = 100_000_000
UPKEEP_SECONDS = 0.3


class Load(NamedTuple):
    """What is published, and who follows. rate: events a second; batch: events in one append."""

    log: str
    followers: int
    rate: int
    batch: int
    listened: bool = False


class Cost(NamedTuple):
    """One measurement.

    each: µs of CPU time for each event and follower; busy: how much of a core each follower used; rate: events a second
    that were published.
    """

    each: float
    busy: float
    rate: float


def cpu_ns(pids: Sequence[int]) -> int:
    """Return the CPU time so far of all threads of these processes; the kernel counts it in nanoseconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended
                total += int((task / "schedstat").read_text().split()[0])
    return total


@contextlib.contextmanager
def logged(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty log."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/log.db"
        return
    port = free_port()
    argv = redis_command(port, folder).argv
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        try:
            _until(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@contextlib.contextmanager
def serving(tree: Path, log: str, workers: int) -> Iterator[tuple[int, list[int]]]:
    """Run a checkout's service; yield its port and its workers' process ids."""
    port, health = free_port(), free_port()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SSE_", "HEALTH_", "LOG_"))},
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "HEALTH_PORT": str(health),
        "WEB_CONCURRENCY": str(workers),
        "SSE_LOG": log,
        "SSE_RETAIN_EVENTS": str(RETAINED),
        "SSE_DRAIN_DELAY": "0",
        "SSE_DRAIN_WINDOW": "0",
        "LOG_LEVEL": "error",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    with subprocess.Popen(command, cwd=tree, env=env) as master:
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children")
        try:
            _until(lambda: urllib.request.urlopen(f"http://127.0.0.1:{health}/startupz", timeout=2).close())
            yield port, [int(pid) for pid in children.read_text().split()]
        finally:
            master.terminate()
            try:
                master.wait(10)
            except subprocess.TimeoutExpired:
                for pid in children.read_text().split():
                    os.kill(int(pid), 9)
                master.kill()


def _until(attempt: object) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            attempt()  # type: ignore[operator]
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Readers:
    """Streams of the channel, read in a thread of this process. As many as make it likely that each worker has ten."""

    def __init__(self, port: int, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._over = False
        self.bytes = 0
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(f"GET /events/{MINE} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
            if b" 200 " not in connection.recv(65536):
                raise SystemExit("a stream was refused")
            self._selector.register(connection, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                self.bytes += len(key.fileobj.recv(1 << 20))

    def close(self) -> None:
        self._over = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def publish(url: str, load: Load, seconds: float) -> None:
    """Append at the load's rate for some time, then print how many events that were, and the seconds it took."""
    log = open_log(url, retain_events=RETAINED, retain_seconds=86_400)
    data = [json.dumps({"item": n, "text": "." * 160}) for n in range(load.batch)]
    names = [MINE] if load.listened else [f"other:{n}" for n in range(OTHERS)]
    batches = [
        make_events([names[(first + n) % len(names)] for n in range(load.batch)], data)
        for first in range(0, 64 * load.batch, load.batch)
    ]
    over = threading.Event()
    upkeep = threading.Thread(target=_keep, args=(log, over))
    log.trim()
    upkeep.start()
    print("ready", flush=True)
    sys.stdin.readline()
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        if (ahead := sent / load.rate - now) > 0:
            time.sleep(ahead)
        log.append(batches[sent // load.batch % 64])
        sent += load.batch
    print(json.dumps([sent, time.monotonic() - began]), flush=True)
    over.set()
    upkeep.join()
    log.close()


def _keep(log: Log, over: threading.Event) -> None:
    while not over.wait(UPKEEP_SECONDS):
        log.trim()


def measure(tree: Path, load: Load, seconds: float) -> Cost:
    """Measure one load with the code of one checkout, in processes and a log of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name, contextlib.ExitStack() as stack:
        url = stack.enter_context(logged(load.log, Path(name)))
        command = [sys.executable, "-m", "bench.followers", "--publish", url, json.dumps(load), str(seconds)]
        publisher = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert publisher.stdin is not None and publisher.stdout is not None
        publisher.stdout.readline()
        port, workers = stack.enter_context(serving(tree, url, load.followers))
        readers = Readers(port, STREAMS * load.followers)
        stack.callback(readers.close)
        before = cpu_ns(workers)
        time.sleep(IDLE_SECONDS)
        began, idle = time.monotonic(), cpu_ns(workers)
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        sent, took = json.loads(publisher.stdout.readline())
        time.sleep(0.3)  # what was published last is read
        spent, elapsed = cpu_ns(workers) - idle, time.monotonic() - began
        spent -= int((idle - before) / IDLE_SECONDS * elapsed)
        return Cost(spent / sent / load.followers / 1000, spent / 1e9 / took / load.followers, sent / took)


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _spread(values: Sequence[float], form: str = ".2f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def alone(loads: Sequence[Load], options: argparse.Namespace) -> list[str]:
    """Measure every load with this checkout; return the table."""
    rounds = [[measure(ROOT, load, options.seconds) for load in loads] for _ in range(options.rounds)]
    lines = [
        _row(["log", "followers", "events/s", "in one append", "µs of CPU for each event and follower", "a core",
              "busy at, events/s"]),
        _row(["---", *["---:"] * 6]),
    ]  # fmt: skip
    for load, costs in zip(loads, zip(*rounds, strict=True), strict=True):
        each = [cost.each for cost in costs]
        busy, rate = (statistics.median(values) for values in ([c.busy for c in costs], [c.rate for c in costs]))
        full = f"{1e6 / statistics.median(each):,.0f}"
        lines.append(
            _row([TITLES[load.log], load.followers, f"{rate:,.0f}", load.batch, _spread(each), f"{busy:.0%}", full])
        )
    return lines


def against(other: Path, loads: Sequence[Load], options: argparse.Namespace) -> list[str]:
    """Measure every load with another checkout and with this one, in turns; return the table of ratios."""
    lines = [
        _row(["log", "followers", "events/s", "in one append", "before, µs", "after, µs", "after ÷ before", "rounds"]),
        _row(["---", *["---:"] * 7]),
    ]
    for load in loads:
        before, after = list[float](), list[float]()
        for turn in range(options.rounds):
            order = [(other, before), (ROOT, after)]
            for tree, costs in order if turn % 2 == 0 else order[::-1]:
                costs.append(measure(tree, load, options.seconds).each)
        ratios = [new / old for old, new in zip(before, after, strict=True)]
        cells = [TITLES[load.log], load.followers, f"{load.rate:,}", load.batch]
        lines.append(_row([*cells, _spread(before), _spread(after), _spread(ratios), len(ratios)]))
    return lines


TITLES = {"sqlite": "SQLite", "redis": "Redis"}

ABOUT = """\
## Events that nobody in a worker listens to

    .venv/bin/python -m bench.followers                     three minutes; --write writes this section
    .venv/bin/python -m bench.followers --against TREE      beside another checkout, in turns

Each worker reads every event of the log, also those that none of its streams asked for. Here each has {streams}
streams of one channel, and another process appends {batch} events at once to {others} other channels, 180 bytes each.
It also does the log's upkeep, which is one process's work. What a worker takes while nothing is published is not
counted. The last column is the rate at which following alone would fill a core; above it a worker falls behind. A
follower that is behind reads larger pages, which cost less for each event: at 100 events a wake-up, half of the time
is the wake-up's. Medians of
{rounds} rounds of {seconds:g} s, in parentheses the spread, on {date}, load average {load:.1f}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", nargs="+", default=list(TITLES), choices=TITLES)
    parser.add_argument("--followers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rates", type=int, nargs="+", default=[1_000, 10_000, 30_000], help="events a second")
    parser.add_argument("--batch", type=int, default=100, help="events in one append")
    parser.add_argument("--seconds", type=float, default=3, help="for how long each measurement publishes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--listened", action="store_true", help="publish to the channel that the streams read")
    parser.add_argument("--against", type=Path, metavar="TREE", help="compare with another checkout, in turns")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    parser.add_argument("--publish", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        url, load, seconds = options.publish
        publish(url, Load(*json.loads(load)), float(seconds))
        return
    loads = [
        Load(log, followers, rate, options.batch, options.listened)
        for log in options.log
        for followers in options.followers
        for rate in options.rates
    ]
    if options.against is not None:
        print("\n".join(against(options.against.resolve(), loads, options)), flush=True)
        return
    about = ABOUT.format(
        streams=STREAMS,
        batch=options.batch,
        others=OTHERS,
        rounds=options.rounds,
        seconds=options.seconds,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        load=os.getloadavg()[0],
    )
    *heading, prose = about.rstrip().split("\n\n")
    prose = textwrap.fill(prose, WIDTH, break_on_hyphens=False)
    text = "\n\n".join([*heading, prose, "\n".join(alone(loads, options))])
    print(text, flush=True)
    if options.write:
        sections.write("followers", text)


if __name__ == "__main__":
    main()
