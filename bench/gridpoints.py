"""What `bench.grid` measures, and what it makes of it: points, the search for saturation, the bar. No server here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

OURS = "headwater"
BAR_FROM = 100  # streams; with fewer there is no bar

# A load is held if this share of what was due arrives, all of it intact. Else a backlog grows for as long as it lasts.
HELD = 0.97
# … and if half of it arrives this soon, ms: a backlog that was there from the beginning need not grow. A server that
# writes to 10,000 streams one by one takes less than that for half of them.
HELD_P50 = 150.0
# The search ends when the least rate that was not held is at most this many times the greatest that was.
CLOSE = 1.15
STEP = 1.5  # factor between two rates of the search until one is held and one is not
MOST_TRIES = 8
SEARCH_RUNS = 6  # that it usually takes, with the closed loop before it


class Run(NamedTuple):
    """One run at a fixed rate. Latencies in ms; cpu: share of a core."""

    rate: float  # events a second that were due
    arrived: float  # share of them that arrived within the measured time
    p50: float
    p99: float
    longest: float
    cpu: float
    faults: tuple[str, ...] = ()

    def held(self) -> bool:
        """Say whether the server held this load."""
        return self.arrived >= HELD and self.p50 <= HELD_P50 and not self.faults


class Pair(NamedTuple):
    """A peer at a share of its saturation, and Headwater at the same rate, one after the other."""

    peer: str
    streams: int
    share: float
    theirs: Run
    ours: Run


@dataclass(frozen=True)
class Cell:
    """A step of the plan: one peer (or Headwater alone) at one number of streams, at some shares of its saturation."""

    peer: str
    streams: int
    shares: tuple[float, ...]

    def runs(self, searched: bool) -> int:
        """Return how many runs of the load generator it takes, about."""
        return (0 if searched else SEARCH_RUNS) + len(self.shares) * (1 if self.peer == OURS else 2)

    def title(self) -> str:
        """Describe the cell, for the list of what was left out."""
        shares = ", ".join(f"{share:.0%}" for share in self.shares)
        return f"{self.peer} with {self.streams:,} stream{'s' if self.streams > 1 else ''} at {shares}"


def listed(cells: Iterable[Cell]) -> str:
    """Name cells in few words: by their shares, then by their streams."""
    groups: dict[tuple[float, ...], dict[int, list[str]]] = {}
    for cell in dict.fromkeys(cells):
        groups.setdefault(cell.shares, {}).setdefault(cell.streams, []).append(cell.peer)
    parts = []
    for shares, by_streams in groups.items():
        same: dict[tuple[str, ...], list[str]] = {}  # numbers of streams at which the same peers are missing
        for streams, missing in by_streams.items():
            same.setdefault(tuple(missing), []).append(f"{streams:,}")
        cases = ", ".join(f"{' and '.join(numbers)} streams ({', '.join(names)})" for names, numbers in same.items())
        parts.append(f"at {', '.join(f'{share:.0%}' for share in shares)}: {cases}")
    return "; ".join(parts)


FIRST_STREAMS: tuple[int, ...] = (2000, 100, 1000, 10000)
FIRST_SHARES = (0.1, 0.5, 0.9)
MORE_SHARES = (0.25, 0.75)
LATER = ("mercure", "centrifugo-redis")  # they store more than their variants in memory, and are slower


def plan(peers: Iterable[str], streams: Iterable[int], rounds: int) -> list[Cell]:
    """Return all cells, what decides the bar first: a budget cuts the list at its end."""
    streams = sorted(streams)
    barred = [count for count in FIRST_STREAMS if count in streams]
    barred += [count for count in streams if count >= BAR_FROM and count not in barred]
    few = [count for count in streams if count < BAR_FROM]
    peers = [peer for peer in peers if peer != OURS]
    cells = [Cell(peer, count, FIRST_SHARES) for count in barred for peer in peers if peer not in LATER]
    cells += [Cell(OURS, count, FIRST_SHARES) for count in barred]
    cells += [Cell(peer, count, FIRST_SHARES) for count in barred for peer in peers if peer in LATER]
    cells += [Cell(peer, count, FIRST_SHARES) for count in few for peer in (*peers, OURS)]
    cells += [Cell(peer, count, MORE_SHARES) for count in barred for peer in (*peers, OURS)]
    cells += [Cell(peer, count, MORE_SHARES) for count in few for peer in (*peers, OURS)]
    return cells * rounds


def saturation(held: Callable[[float], bool], guess: float) -> float:
    """Return the greatest rate that is held, within a factor of CLOSE; 0.0 if none is found.

    ``held`` tries one rate; ``guess`` is where to begin, events a second.
    """
    low, high = 0.0, math.inf
    rate = guess
    for _ in range(MOST_TRIES):
        if held(rate):
            low = rate
        else:
            high = rate
        if high <= low * CLOSE:
            break
        rate = low * STEP if high == math.inf else high / STEP if low == 0 else math.sqrt(low * high)
    return low


class Point(NamedTuple):
    """The runs of one peer, number of streams and share, in medians over the rounds."""

    peer: str
    streams: int
    share: float
    theirs: Run
    ours: Run
    ratio: float  # our p99 over theirs: the median over the rounds
    least: float
    most: float
    rounds: int

    def verdict(self) -> str:
        """Say whether the bar holds: yes, no, or why there is none."""
        if self.streams < BAR_FROM:
            return ""
        if not self.theirs.held():
            return "the peer does not hold it"
        if not self.ours.held():
            return "**no**: lost or late"
        return "yes" if self.ratio <= 1 else "**no**"


def points(pairs: Iterable[Pair]) -> list[Point]:
    """Join the rounds of each point, in the order of streams, peers (as measured) and shares."""
    rounds: dict[tuple[str, int, float], list[Pair]] = {}
    for pair in pairs:
        rounds.setdefault((pair.peer, pair.streams, pair.share), []).append(pair)
    order = list(dict.fromkeys(peer for peer, _, _ in rounds))
    found = []
    for (peer, streams, share), each in rounds.items():
        ratios = [pair.ours.p99 / max(pair.theirs.p99, 0.001) for pair in each]
        theirs, ours = median([pair.theirs for pair in each]), median([pair.ours for pair in each])
        ratio = statistics.median(ratios)
        found.append(Point(peer, streams, share, theirs, ours, ratio, min(ratios), max(ratios), len(each)))
    return sorted(found, key=lambda point: (point.streams, order.index(point.peer), point.share))


def median(runs: list[Run]) -> Run:
    """Return the median of each figure; what went wrong in any round."""
    rate, arrived, p50, p99, longest, cpu = (
        statistics.median(values) for values in zip(*(run[:-1] for run in runs), strict=True)
    )
    faults = tuple(dict.fromkeys(fault for run in runs for fault in run.faults))
    return Run(rate, arrived, p50, p99, longest, cpu, faults)


def judged(found: Iterable[Point]) -> tuple[int, int]:
    """Return at how many points the bar holds, and how many have a bar."""
    verdicts = [point.verdict() for point in found]
    return verdicts.count("yes"), sum(verdict.startswith(("yes", "**no**")) for verdict in verdicts)
