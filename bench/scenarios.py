"""What is measured. A scenario has cases (its sizes), and measures one case on one running peer."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench import build, load, measure
from bench.peers.base import LOAD_CPU, SERVER_CPU, Peer, Running

Case = dict[str, Any]
Metrics = dict[str, Any]

WARM_UP = 1.5  # seconds before the measured window
HEARTBEAT = 15  # seconds; every peer that has heartbeats is set to it
PATIENCE = 100  # seconds more than the measured time until a run has failed

# Wire bytes around the data: "id: 1732345678901-0\ndata: …\n\n" and the chunk's frame.
ENVELOPE = 36


@dataclass(frozen=True)
class Scenario:
    """One table of the report."""

    name: str
    title: str
    explanation: str
    headline: str  # the metric that is compared
    unit: str
    more_is_better: bool
    cases: list[Case]
    quick_cases: list[Case]
    measure: Callable[[Running, Case, float], Metrics]
    seconds: float = 5.0
    quick_seconds: float = 2.0
    rounds: int = 3
    quick_rounds: int = 1
    only_resuming: bool = False
    in_quick: bool = True

    def misfit(self, peer: Peer, case: Case) -> str:
        """Why this case cannot be measured on this peer; empty when it can."""
        streams = case.get("streams", 0)
        if peer.most_streams and streams > peer.most_streams:
            return f"more than {peer.most_streams:,} streams"
        if case.get("batch", 1) > 1 and peer.batch_target is None:
            return "no batches"
        return ""

    def concerns(self, peer: Peer) -> bool:
        """Is there anything to measure on this peer?"""
        return peer.resumes or not self.only_resuming

    def quick(self) -> Scenario:
        """The short form: fewer cases, shorter windows, fewer rounds."""
        return replace(self, cases=self.quick_cases, seconds=self.quick_seconds, rounds=self.quick_rounds)


def label(case: Case) -> str:
    """A case in words."""
    size, words = case.get("size"), []
    if size:
        words.append(f"{size // 1024} KB" if size >= 1024 else f"{size} B")
    if "streams" in case and case["streams"]:
        words.append(f"{case['streams']:,} streams")
    if "publishers" in case:
        words.append(f"{case['publishers']} publisher{'s' if case['publishers'] > 1 else ''}")
    if case.get("batch", 1) > 1:
        words.append(f"batches of {case['batch']:,}")
    return ", ".join(words)


def _load(running: Running, case: Case, seconds: float, **options: object) -> Metrics:
    given = {"streams": case.get("streams", 0), "size": case.get("size", 100), "warmup": WARM_UP, **options}
    given["seconds"] = seconds
    channel = f"bench-{time.monotonic_ns() % 10**9}"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    target = running.peer.batch_target if case.get("batch", 1) > 1 else None
    return load.run([*running.arguments(channel, target), *flags], seconds + PATIENCE)


def saturation(running: Running, case: Case, seconds: float) -> Metrics:
    """One publisher that waits for each answer; everything is delivered as fast as it goes."""
    return _load(running, case, seconds, publish="closed")


def latency(running: Running, case: Case, seconds: float) -> Metrics:
    """A fixed rate, timed from when each event was due."""
    return _load(running, case, seconds, publish="open", rate=case["rate"], publishers=2)


def slow_readers(running: Running, case: Case, seconds: float) -> Metrics:
    """The same fixed rate without slow readers and with them, on the same server."""
    options: dict[str, object] = {"publish": "open", "rate": case["rate"], "publishers": 2}
    without = _load(running, case, seconds, **options)
    with_slow = _load(running, case, seconds, never=case["never"], trickle=case["trickle"], **options)
    p99, p99_slow = without["latency_us"]["p99"], with_slow["latency_us"]["p99"]
    return {**with_slow, "p99_without_us": p99, "p99_with_us": p99_slow, "p99_ratio": p99_slow / max(p99, 1)}


def channels(running: Running, case: Case, seconds: float) -> Metrics:
    """Every stream has a channel of its own; the events' channels follow Zipf's law."""
    return _load(running, case, seconds, publish="closed", channels=case["streams"], publishers=8)


def publish(running: Running, case: Case, seconds: float) -> Metrics:
    """Publishing with nobody listening: what one request costs."""
    batch = case.get("batch", 1)
    result = _load(running, case, seconds, publish="closed", publishers=case["publishers"], batch=batch)
    return {**result, "published_per_second": result["publishes_per_second"] * batch}


def storm(running: Running, case: Case, seconds: float) -> Metrics:
    """All streams are cut, miss some events, and come back at once with their cursors."""
    options = {"publish": "closed", "storm": case["missed"], "open_inflight": 4096, "open_timeout": 60}
    result = _load(running, {**case}, seconds, **options)
    return {**result, **{f"storm_{name}": value for name, value in result["storm"].items()}}


def idle(running: Running, case: Case, seconds: float) -> Metrics:
    """Memory and CPU of streams on which nothing happens but heartbeats, and how fast they opened."""
    _load(running, {"streams": 50}, 0.3, publish="closed", warmup=0)  # imports, pools, first requests
    pids = running.pids()
    measure.settled(lambda: measure.memory(pids).rss)
    before = measure.memory(pids)
    flags = ["--publish=none", "--sleep=1", "--seconds=3600", f"--streams={case['streams']}", "--warmup=0"]
    with load.Generator([*running.arguments("idle"), *flags]) as generator:
        opened = generator.line(PATIENCE)
        measure.settled(lambda: measure.memory(pids).rss)
        after = measure.memory(pids)
        cpu, machine, began = measure.cpu_seconds(pids), measure.machine_cpu(), time.monotonic()
        time.sleep(seconds)  # the interval that is measured
        took = time.monotonic() - began
        cpu, machine = measure.cpu_seconds(pids) - cpu, measure.machine_cpu() - machine
        result = generator.finish(PATIENCE)
    streams = max(opened["opened"], 1)
    return {
        **result,
        "rss_per_stream": (after.rss - before.rss) / streams,
        "pss_per_stream": (after.pss - before.pss) / streams,
        "kernel_per_stream": (after.kernel - before.kernel) / streams,
        "idle_rss": before.rss,
        "server_cpu": cpu / took,
        "other_cpu": max(0.0, (machine - cpu) / took),
    }


def ceiling(case: Case, seconds: float, joined: int) -> Metrics:
    """The rate of bare sends from the server's core to as many sockets."""
    wire = case["size"] + ENVELOPE
    numbers = [case["streams"], wire, joined, seconds, SERVER_CPU, LOAD_CPU]
    done = subprocess.run(
        [str(build.ceiling()), *map(str, numbers)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    result: Metrics = json.loads(done.stdout)
    return result


def _grid(sizes: list[int], streams: list[int]) -> list[Case]:
    return [{"size": size, "streams": count} for size in sizes for count in streams]


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
            saturation,
            quick_rounds=2,
        ),
        Scenario(
            "latency",
            "Latency at a fixed rate",
            "2,000 streams and 30 events a second, 60,000 deliveries a second; timed from the moment at which each "
            "event was due until a client had read it.",
            "latency_us.p99",
            "ms",
            False,
            [{"size": 100, "streams": 2000, "rate": 30}],
            [{"size": 100, "streams": 2000, "rate": 30}],
            latency,
            seconds=10,
            quick_seconds=3,
        ),
        Scenario(
            "idle",
            "Idle streams: memory, CPU and opening",
            "Above the same server without streams. Kernel memory is that of both ends. CPU is with a heartbeat "
            "every 15 s where the server has them.",
            "rss_per_stream",
            "bytes",
            False,
            [{"streams": n} for n in (1000, 10000, 18000)],
            [{"streams": 1000}],
            idle,
            seconds=2 * HEARTBEAT,
            quick_seconds=1,
        ),
        Scenario(
            "slow",
            "Slow readers: what they cost the others",
            "1,000 streams, 30 events a second; p99 of the other streams with readers that stall (never read) and "
            "trickle (1 KB/s) among them, over p99 without.",
            "p99_ratio",
            "×",
            False,
            [
                {"size": 1024, "streams": 1000, "rate": 30, "never": 1, "trickle": 1},
                {"size": 1024, "streams": 1000, "rate": 30, "never": 50, "trickle": 50},
            ],
            [{"size": 1024, "streams": 1000, "rate": 30, "never": 1, "trickle": 1}],
            slow_readers,
            seconds=12,
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
            channels,
            in_quick=False,
        ),
        Scenario(
            "publish",
            "Publishing",
            "Nobody listens; events per second that are acknowledged.",
            "published_per_second",
            "events/s",
            True,
            [{"publishers": 1}, {"publishers": 16}, {"publishers": 4, "batch": 1000}],
            [{"publishers": 1}, {"publishers": 4, "batch": 1000}],
            publish,
        ),
        Scenario(
            "storm",
            "Reconnect storm",
            "All streams are cut, 100 events are published, all streams come back at once with their Last-Event-ID; "
            "the time until the last one has everything it missed.",
            "storm_live_seconds",
            "s",
            False,
            [{"size": 100, "streams": 10000, "missed": 100}],
            [{"size": 100, "streams": 2000, "missed": 100}],
            storm,
            seconds=1,
            quick_seconds=1,
            only_resuming=True,
        ),
    ]
}
