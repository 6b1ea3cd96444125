"""What is measured. A scenario has cases (its sizes), and measures one case on one running peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import methods
from bench.methods import Case, Metrics
from bench.peers.base import Peer, Running

HEARTBEAT = 15  # seconds, for every peer with heartbeats
CEILING_JOINED = (1, 8)  # events per send


@dataclass(frozen=True)
class Scenario:
    """One table of the report."""

    name: str
    title: str
    explanation: str
    headline: str  # the metric to compare
    unit: str
    more_is_better: bool
    cases: list[Case]
    quick_cases: list[Case]
    measure: Callable[[Running, Case, float], Metrics]
    seconds: float = 5.0
    quick_seconds: float = 2.0
    rounds: int = 3
    quick_rounds: int = 1
    loads: int = 1  # runs of the load generator per measurement
    only_resuming: bool = False
    only: tuple[str, ...] = ()  # these peers, whatever was chosen
    table: str = "listing"  # "pivot": the cases across, the headline in each cell
    joins: tuple[int, ...] = ()  # events per `send` of the bare sender measured beside it
    shows_stores: bool = False  # beside each figure, what the peer has stored before it acknowledges
    in_quick: bool = True

    def misfit(self, peer: Peer, case: Case) -> str:
        """Say why this case cannot be measured on this peer; empty if it can."""
        streams = case.get("streams", 0)
        if peer.most_streams and streams > peer.most_streams:
            return f"more than {peer.most_streams:,} streams"
        if case.get("batch", 1) > 1 and peer.batch_target is None:
            return "no batches"
        if peer.creates_channels and self.name == "channels":
            return "a channel must be created first"
        return ""

    def concerns(self, peer: Peer) -> bool:
        """Say whether there is anything to measure on this peer."""
        if peer.only_in not in ("", self.name):
            return False
        return (peer.resumes or not self.only_resuming) and (not self.only or peer.name in self.only)

    def quick(self) -> Scenario:
        """Return the short form: fewer cases, shorter windows, fewer rounds."""
        return replace(self, cases=self.quick_cases, seconds=self.quick_seconds, rounds=self.quick_rounds)


def label(case: Case) -> str:
    """Describe a case."""
    size, words = case.get("size"), []
    if size:
        words.append(f"{size // 1024} KB" if size >= 1024 else f"{size} B")
    if "streams" in case and case["streams"]:
        words.append(f"{case['streams']:,} stream{'s' if case['streams'] > 1 else ''}")
    if "rate" in case:
        words.append(f"{case['rate']} events/s")
    if "publishers" in case:
        words.append(f"{case['publishers']} publisher{'s' if case['publishers'] > 1 else ''}")
    if case.get("batch", 1) > 1:
        words.append(f"batches of {case['batch']:,}")
    return ", ".join(words)


def _grid(sizes: list[int], streams: list[int]) -> list[Case]:
    return [{"size": size, "streams": count} for size in sizes for count in streams]


PUBLISHING: list[Case] = [{"publishers": 1}, {"publishers": 16}, {"publishers": 4, "batch": 1000}]

KNOWN: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in [
        Scenario(
            "saturation",
            "Saturation: delivered events per second",
            "One publisher on one connection, which waits for each answer; every stream is on the same channel.",
            "events_per_second",
            "events/s",
            True,
            _grid([100, 1024, 16384], [100, 1000, 10000]),
            _grid([100], [1000]),
            methods.saturation,
            table="pivot",
            joins=CEILING_JOINED,
        ),
        Scenario(
            "latency",
            "Latency at a fixed rate",
            "Timed from when each event was due until a client had read it. 2,000 streams and 30 events a second are "
            "60,000 deliveries a second.",
            "latency_us.p99",
            "ms",
            False,
            [
                {"size": 100, "streams": 2000, "rate": 30},
                {"size": 100, "streams": 200, "rate": 30},
                {"size": 100, "streams": 10000, "rate": 10},
            ],
            [{"size": 100, "streams": 2000, "rate": 30}],
            methods.latency,
            seconds=10,
            quick_seconds=3,
            joins=(1,),
        ),
        Scenario(
            "idle",
            "Idle streams: memory, CPU and opening",
            "Compared with the same server without streams. Kernel memory includes both ends. CPU includes a heartbeat "
            "every 15 s, if the server has them.",
            "rss_per_stream",
            "bytes",
            False,
            [{"streams": n} for n in (1000, 10000, 18000)],
            [{"streams": 1000}],
            methods.idle,
            seconds=2 * HEARTBEAT,
            quick_seconds=1,
        ),
        Scenario(
            "slow-readers",
            "Slow readers: what they cost the others",
            "1,000 streams, 30 events a second. The ratio is the other streams' p99 with readers that stall (never "
            "read) and trickle (1 KB/s), over p99 without, on the same server, in the order without, with, with, "
            "without.",
            "p99_ratio",
            "×",
            False,
            [
                {"size": 1024, "streams": 1000, "rate": 30, "never": 1, "trickle": 1},
                {"size": 1024, "streams": 1000, "rate": 30, "never": 50, "trickle": 50},
            ],
            [{"size": 1024, "streams": 1000, "rate": 30, "never": 1, "trickle": 1}],
            methods.slow_readers,
            loads=4,
            seconds=12,
            in_quick=False,
        ),
        Scenario(
            "probes",
            "Probes and new streams at saturation",
            "5,000 streams at saturation, and 40 requests a second of each kind, timed from when each was due: a "
            "health check on the main port, one on the health port if there is one, and a new stream until its head "
            "arrives. The requesting thread shares the load generator's core, so the figures include its waiting for "
            "that.",
            "probe_main_us.p99",
            "ms",
            False,
            [{"size": 100, "streams": 5000}],
            [{"size": 100, "streams": 1000}],
            methods.probes,
            seconds=8,
            quick_seconds=2,
            in_quick=False,
        ),
        Scenario(
            "channels",
            "Many channels",
            "As many channels as streams, one stream each; eight publishers draw the channel by Zipf's law.",
            "events_per_second",
            "events/s",
            True,
            [{"size": 100, "streams": 10000}],
            [{"size": 100, "streams": 1000}],
            methods.channels,
            in_quick=False,
        ),
        Scenario(
            "publish",
            "Publishing",
            "Acknowledged events per second, without listeners.",
            "published_per_second",
            "events/s",
            True,
            PUBLISHING,
            [PUBLISHING[0], PUBLISHING[2]],
            methods.publish,
            quick_seconds=1,
            shows_stores=True,
        ),
        Scenario(
            "storm",
            "Reconnect storm",
            "All streams are cut, 100 events are published, and all streams return at once with their Last-Event-ID. "
            "Timed until the last one has everything it missed.",
            "storm_live_seconds",
            "s",
            False,
            [{"size": 100, "streams": 10000, "missed": 100}],
            [{"size": 100, "streams": 2000, "missed": 100}],
            methods.storm,
            seconds=1,
            quick_seconds=1,
            only_resuming=True,
        ),
        Scenario(
            "logs",
            "SQLite, Redis and memory",
            "Headwater's logs, in events per second: delivered ones with streams, acknowledged ones with only "
            "publishers. Redis shares the serving side's one core.",
            "rate",
            "events/s",
            True,
            [*_grid([100], [1000]), *PUBLISHING],
            _grid([100], [1000]),
            methods.either,
            only=("headwater", "headwater-redis", "headwater-memory"),
            table="pivot",
            in_quick=False,
        ),
        Scenario(
            "workers",
            "Two workers",
            "Two workers on both cores, compared with one worker on one. On a machine with two cores the load "
            "generator then has no core of its own, so the figures are lower bounds.",
            "rate",
            "events/s",
            True,
            [*_grid([100], [1000, 10000]), *PUBLISHING[1:]],
            _grid([100], [1000]),
            methods.either,
            only=("headwater", "headwater-two-workers"),
            table="pivot",
            in_quick=False,
        ),
    ]
}
