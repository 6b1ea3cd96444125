"""Latency at every load: each server at shares of its own saturation, and Headwater at the same rates.

    python -m bench.grid --write               twelve minutes; writes its section of docs/benchmarks.md
    python -m bench.grid --write --minutes 60 --rounds 3
    python -m bench.grid --peers go,nchan --streams 100,2000 --minutes 4       writes into build/bench

For each peer and number of streams, both servers are started on one core; only the one that is measured has streams.
First the peer's saturation: the greatest rate of an open loop that it holds (`gridpoints.saturation`). Then the peer at
a share of it, and Headwater at the same number of events a second, in turns. Headwater at shares of its own saturation
has rows of its own. What does not fit into the minutes is left out, and named.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import build, gridpoints, load, methods, peers, plot, sections, tables
from bench.gridpoints import OURS, SEARCH_RUNS, Cell, Pair, Point, Run
from bench.peers.base import Peer, PeerFailed, Running
from bench.sections import ROOT

STREAMS = (1, 10, 100, 1000, 2000, 10000)
NAMES = ("go", "nchan", "mercure-local", "centrifugo", "mercure", "centrifugo-redis")
SIZE = 100  # bytes of data an event
# Connections that publish. An open loop needs as many as requests are under way at once: nchan answers a publisher only
# when it has written the event to all streams.
PUBLISHERS = 16
WARM_UP = 0.6  # seconds
SECONDS = 1.5  # measured, of each run
SEARCH_SECONDS = 1.2  # measured, of each run of the search
LEAST_EVENTS = 8  # due in the measured time; slower loads are measured for longer
START_AND_STOP = 5.0  # seconds, both servers
SEARCH_TAKES = 2.5  # seconds a run of the search; one that is not held ends with its backlog
USUAL_DELIVERIES = 80_000  # a second, of a server that joins nothing: for estimates before the search
RESERVE = 15.0  # seconds for the report, and for the last cell's error

EXPLANATION = """\
An open loop: each event is timed from when it was due until a client has read it, so a stall counts for every event
that it delayed. The server has one core. Before they answer a publisher, Headwater stores the event in SQLite,
Mercure in Bolt ("local": nowhere), nchan in shared memory, Centrifugo in memory or Redis, and Go nowhere. Saturation
is the greatest rate of an open loop, with 16 publishing connections, of which 97 % arrives in time and intact, half
of it within 150 ms. Each row has a peer at a share of its own saturation, and Headwater at the same number of events
a second, measured in turns. Events have 100 bytes of data.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    began = time.monotonic()
    options = _options(arguments)
    grid = Grid(options.peers, options.seconds)
    left_out = []
    for cell in gridpoints.plan(grid.peers, options.streams, options.rounds):
        if grid.fits(cell, options.minutes * 60 - RESERVE - (time.monotonic() - began)):
            grid.measure(cell)
        else:
            left_out.append(cell)
    words = " ".join(["python -m bench.grid", *(sys.argv[1:] if arguments is None else arguments)])
    folder = ROOT / "docs" if options.write else ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    text = grid.report(words, left_out, folder / "plots")
    document = folder / "benchmarks.md"
    if not document.exists():
        document.write_text("# Benchmarks\n")
    sections.write("grid", text, document)
    print(f"\n{document}, in {time.monotonic() - began:.0f} s")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.grid", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = [name for name in NAMES if name in peers.KNOWN]
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=1, help="of every point, if the minutes allow")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="measured seconds a run")
    parser.add_argument("--peers", type=lambda text: text.split(","), default=known, help=f"of {', '.join(known)}")
    parser.add_argument("--streams", type=lambda text: [int(word) for word in text.split(",")], default=STREAMS)
    parser.add_argument("--write", action="store_true", help="write into docs/benchmarks.md")
    return parser.parse_args(arguments)


class Grid:
    """The measured points so far."""

    def __init__(self, names: Sequence[str], seconds: float) -> None:
        self.seconds = seconds
        self.unavailable: dict[str, str] = {}
        self.peers = [name for name in names if self._ready(peers.KNOWN[name])]
        self._ready(peers.KNOWN[OURS])
        self.saturation: dict[tuple[str, int], float] = {}
        self.pairs: list[Pair] = []
        self.own: dict[tuple[int, float], list[Run]] = {}  # Headwater at shares of its own saturation
        self.failed: list[str] = []
        self._number = 0
        self._estimated = self._took = 0.0

    def _ready(self, peer: Peer) -> bool:
        try:
            peer.prepare()
        except build.Unavailable as error:
            self.unavailable[peer.title] = str(error)
        return peer.title not in self.unavailable

    def _estimate(self, cell: Cell) -> float:
        peer = peers.KNOWN[cell.peer]
        opening = cell.streams / min(peer.opens_per_second, peers.KNOWN[OURS].opens_per_second)
        settling = peer.target.settle + cell.streams * peer.target.settle_each
        runs = cell.runs((cell.peer, cell.streams) in self.saturation)
        most = self.saturation.get((cell.peer, cell.streams)) or USUAL_DELIVERIES / cell.streams
        measured = sum(self._seconds(share * most) for share in cell.shares) * (1 if cell.peer == OURS else 2)
        searching = 0.0 if (cell.peer, cell.streams) in self.saturation else SEARCH_RUNS * SEARCH_TAKES
        return START_AND_STOP + runs * (opening + settling + WARM_UP) + measured + searching

    def _seconds(self, rate: float, least: float = 0.0) -> float:
        """Return how long to measure at a rate."""
        return max(least or self.seconds, LEAST_EVENTS / rate)

    def fits(self, cell: Cell, left: float) -> bool:
        """Say whether a cell would end within the seconds left, at the pace so far."""
        pace = self._took / self._estimated if self._estimated else 1.0
        return self._estimate(cell) * max(pace, 0.7) <= left

    def measure(self, cell: Cell) -> None:
        """Measure a cell. A server that fails costs the cell, and is named."""
        began, estimate = time.monotonic(), self._estimate(cell)
        print(f"\n{cell.title()}", flush=True)
        try:
            self._measure(cell)
        except (PeerFailed, load.LoadFailed, OSError, subprocess.SubprocessError) as error:
            self.failed.append(f"{cell.title()} ({str(error)[-200:]})")
            print(f"  failed: {error}", flush=True)
        self._estimated += estimate
        self._took += time.monotonic() - began

    def _measure(self, cell: Cell) -> None:
        with contextlib.ExitStack() as stack:
            theirs = stack.enter_context(peers.KNOWN[cell.peer].started(cell.streams))
            ours = theirs if cell.peer == OURS else stack.enter_context(peers.KNOWN[OURS].started(cell.streams))
            key = (cell.peer, cell.streams)
            if key not in self.saturation:
                self.saturation[key] = self._search(theirs, cell.streams)
                print(f"  saturation {self.saturation[key]:,.1f} events/s", flush=True)
            if not self.saturation[key]:
                return
            for share in cell.shares:
                rate = share * self.saturation[key]
                if cell.peer == OURS:
                    self.own.setdefault((cell.streams, share), []).append(self._run(ours, cell.streams, rate))
                    continue
                self._number += 1  # the servers take turns: A B, then B A
                order = (theirs, ours) if self._number % 2 else (ours, theirs)
                runs = {running.port: self._run(running, cell.streams, rate) for running in order}
                pair = Pair(cell.peer, cell.streams, share, runs[theirs.port], runs[ours.port])
                self.pairs.append(pair)

    def _search(self, running: Running, streams: int) -> float:
        closed = _load(running, streams, SEARCH_SECONDS, publish="closed", publishers=PUBLISHERS)
        guess = max(closed["events_per_second"] / streams, 1.0)
        return gridpoints.saturation(lambda rate: self._run(running, streams, rate, SEARCH_SECONDS).held(), guess)

    def _run(self, running: Running, streams: int, rate: float, seconds: float = 0.0) -> Run:
        seconds = self._seconds(rate, seconds)
        found = _load(running, streams, seconds, publish="open", rate=rate, publishers=PUBLISHERS)
        run = _run_of(found, streams, rate)
        print(
            f"  {running.peer.name:18} {rate:10,.1f} events/s  p50 {run.p50:8.2f}  p99 {run.p99:8.2f} ms  "
            f"max {run.longest:8.1f}  CPU {run.cpu:4.0%}  {'' if run.held() else 'not held'}",
            flush=True,
        )
        return run

    # ── the report ────────────────────────────────────────────────────────────────────────────────────────

    def report(self, command: str, left_out: list[Cell], plots: Path) -> str:
        """Write the section, and draw its plots."""
        found = gridpoints.points(self.pairs)
        holds, barred = gridpoints.judged(found)
        text = f"## Latency at every load\n\n{EXPLANATION}\n"
        text += f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, `{command}`.\n\n"
        rounds = sorted({point.rounds for point in found}) or [0]
        text += tables.table(
            ["bar", "measured", "rounds", "holds"],
            [
                [
                    "100 streams or more: Headwater's p99 at or below that of every peer that holds the load",
                    f"at {holds} of {barred} points",
                    " to ".join(str(number) for number in dict.fromkeys((rounds[0], rounds[-1]))),
                    "yes" if holds == barred else "**no**",
                ]
            ],
        )
        for streams in sorted({point.streams for point in found}):
            here = [point for point in found if point.streams == streams]
            text += f"\n{_picture(self._series(here), streams, plots)}\n\n{self._pairs_table(here)}"
        if self.own:
            text += f"\nHeadwater at shares of its own saturation:\n\n{self._own_table()}"
        for title, reason in self.unavailable.items():
            text += f"\nNot run: {title} ({reason}).  "
        if self.failed:
            text += f"\nFailed: {'; '.join(self.failed)}.  "
        if left_out:
            text += f"\nNot measured, for lack of time: {gridpoints.listed(left_out)}.  "
        return text + "\n"

    def _pairs_table(self, here: list[Point]) -> str:
        streams = here[0].streams
        head = [f"{streams:,} stream{'s' if streams > 1 else ''}", "of its saturation", "events/s"]
        head += ["its p50 ms", "p99", "max", "CPU", "Headwater's p50 ms", "p99", "max", "CPU", "p99 over it", "bar"]
        return tables.table(head, [_row(point) for point in here])

    def _own_table(self) -> str:
        rows = []
        for (streams, share), runs in sorted(self.own.items()):
            run = gridpoints.median(runs)
            held = "" if run.held() else " (not held)"
            rows.append([f"{streams:,}", f"{share:.0%}", tables.count(run.rate) + held, *_figures(run)])
        return tables.table(["streams", "of its saturation", "events/s", "p50 ms", "p99", "max", "CPU"], rows)

    def _series(self, here: list[Point]) -> plot.Series:
        """Return p99 in ms over deliveries a second; Headwater's points are all that were measured."""
        series: plot.Series = {}
        streams = here[0].streams
        ours = [point.ours for point in here if point.ours.held()]
        ours += [run for (count, _), runs in self.own.items() if count == streams for run in runs if run.held()]
        series[peers.KNOWN[OURS].title] = sorted((run.rate * streams, run.p99) for run in ours)
        for point in here:
            if point.theirs.held():
                each = series.setdefault(peers.KNOWN[point.peer].title, [])
                each.append((point.theirs.rate * streams, point.theirs.p99))
        return {name: sorted(each) for name, each in series.items() if each}


def _load(running: Running, streams: int, seconds: float, **options: object) -> dict[str, Any]:
    case = {"streams": streams, "size": SIZE}
    return load.run(methods.flags(running, case, seconds, warmup=WARM_UP, **options), seconds + methods.PATIENCE)


def _run_of(found: dict[str, Any], streams: int, rate: float) -> Run:
    """Return what matters of the load generator's result."""
    latency = found["latency_us"]
    return Run(
        rate=rate,
        # One event may have been due in the measured time and have arrived just after it.
        arrived=min(1.0, found["events_per_second"] / (rate * streams) + 1 / (rate * found["window_seconds"])),
        p50=latency["p50"] / 1e3,
        p99=latency["p99"] / 1e3,
        longest=latency["max"] / 1e3,
        cpu=found["server_cpu"],
        faults=tuple(tables.faults([found])),
    )


def _row(point: Point) -> list[str]:
    ratio = tables.times(point.ratio)
    if point.rounds > 1:
        ratio += f" ({point.least:.2f}–{point.most:.2f})"
    cells = [peers.KNOWN[point.peer].title, f"{point.share:.0%}", tables.count(point.theirs.rate)]
    return [*cells, *_figures(point.theirs), *_figures(point.ours), ratio, point.verdict()]


def _figures(run: Run) -> list[str]:
    return [*(f"{value:.3g}" for value in (run.p50, run.p99, run.longest)), f"{run.cpu:.0%}"]


def _picture(series: plot.Series, streams: int, folder: Path) -> str:
    """Draw p99 over the load; return the Markdown that shows it."""
    name = f"grid-{streams}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    title = f"p99 by load, {streams:,} stream{'s' if streams > 1 else ''}"
    ticks = list(_ticks(series))
    (folder / name).write_text(plot.lines(series, title, "deliveries/s", "ms", ticks))
    return f"![{title}](plots/{name})"


def _ticks(series: plot.Series) -> Iterator[tuple[float, str]]:
    """Return powers of ten within the series' range, with words."""
    xs = [x for each in series.values() for x, _ in each] or [1.0]
    for exponent in range(8):
        if min(xs) <= 10**exponent <= max(xs):
            yield float(10**exponent), f"{10**exponent:,}"


if __name__ == "__main__":
    raise SystemExit(main())
