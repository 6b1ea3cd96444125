"""Methods that measure one case of a scenario on one running peer. Each returns one run's metrics."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from bench import build, load, measure
from bench.peers.base import LOAD_CPU, SERVER_CPU, Running, Target
from bench.probing import Prober

Case = dict[str, Any]
Metrics = dict[str, Any]

WARM_UP = 1.5  # seconds before the measured window
OPEN_TIMEOUT = 40  # seconds after which unopened streams count as failed
PATIENCE = 80  # seconds beyond the measured time after which a run has failed

# Wire bytes around the data: "id: 1732345678901-0\ndata: …\n\n" and the chunk's frame.
ENVELOPE = 36


def flags(running: Running, case: Case, seconds: float, **options: object) -> list[str]:
    given = {"streams": case.get("streams", 0), "size": case.get("size", 100), "warmup": WARM_UP}
    given |= {"open_timeout": OPEN_TIMEOUT, **options, "seconds": seconds}
    channel = f"bench-{time.monotonic_ns() % 10**9}"
    running.peer.create_channel(running.port, channel)
    target = running.peer.batch_target if case.get("batch", 1) > 1 else None
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return [*running.arguments(channel, target, case.get("streams", 0)), *words]


def _load(running: Running, case: Case, seconds: float, **options: object) -> Metrics:
    return load.run(flags(running, case, seconds, **options), seconds + PATIENCE)


def saturation(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure the rate with one publisher that waits for each answer."""
    result = _load(running, case, seconds, publish="closed")
    return {**result, "rate": result["events_per_second"]}


def latency(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure latency at a fixed rate, from when each event was due."""
    result = _load(running, case, seconds, publish="open", rate=case["rate"], publishers=2)
    held = result["events_per_second"] / (case["rate"] * case["streams"])
    return {**result, "held": held, "writes_per_cpu_second": writes_per_cpu_second(result)}


def writes_per_cpu_second(result: Metrics) -> float:
    """Return the writes per second of server CPU, at a rate at which hardly anything is joined.

    Events that were joined arrive in one read, and count once.
    """
    joined = max(1.0, result["events"] / max(result["reads"], 1))
    busy = result["server_cpu"]
    return result["events_per_second"] / joined / busy if busy else 0.0


def slow_readers(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure latency without slow readers, twice with them, and without again, on the same server."""
    options: dict[str, object] = {"publish": "open", "rate": case["rate"], "publishers": 2}
    slow = {"never": case["never"], "trickle": case["trickle"]}
    runs = [_load(running, case, seconds, **options, **more) for more in ({}, slow, slow, {})]
    p99 = [run["latency_us"]["p99"] for run in runs]
    without, with_slow = (p99[0] + p99[3]) / 2, (p99[1] + p99[2]) / 2
    metrics = {"p99_without_us": without, "p99_with_us": with_slow, "p99_ratio": with_slow / max(without, 1)}
    return {**runs[2], **metrics}


def probes(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure probes and new streams at saturation."""
    with load.Generator(flags(running, case, seconds + 1, publish="closed")) as generator:
        generator.line(PATIENCE)
        time.sleep(running.peer.target.settle + WARM_UP)
        with Prober(running, LOAD_CPU) as prober:
            time.sleep(seconds)
        result = generator.line(PATIENCE)
    return {**result, **prober.metrics()}


def channels(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure with one channel per stream; the events' channels follow Zipf's law."""
    return _load(running, case, seconds, publish="closed", channels=case["streams"], publishers=8)


def publish(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure publishing without listeners: what one request costs."""
    batch = case.get("batch", 1)
    result = _load(running, case, seconds, publish="closed", publishers=case["publishers"], batch=batch)
    rate = result["publishes_per_second"] * batch
    return {**result, "published_per_second": rate, "rate": rate}


def either(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure saturation if the case has streams, else publishing; `rate` is either's figure."""
    return (saturation if case.get("streams") else publish)(running, case, seconds)


def storm(running: Running, case: Case, seconds: float) -> Metrics:
    """Cut all streams, publish what they miss, and let all return at once with their cursors."""
    options = {"publish": "closed", "storm": case["missed"], "open_inflight": 4096}
    result = _load(running, case, seconds, **options)
    return {**result, **{f"storm_{name}": value for name, value in result["storm"].items()}}


def idle(running: Running, case: Case, seconds: float) -> Metrics:
    """Measure memory and CPU of streams with only heartbeats, and how fast they open."""
    _load(running, {"streams": 50}, 0.3, publish="closed", warmup=0)  # imports, pools, first requests
    pids = running.pids()
    measure.settled(lambda: measure.memory(pids).rss)
    before = measure.memory(pids)
    opening = measure.cpu_seconds(pids)
    running.peer.create_channel(running.port, "idle")
    flags = ["--publish=none", "--sleep=1", "--seconds=3600", f"--streams={case['streams']}", "--warmup=0"]
    with load.Generator([*running.arguments("idle", None, case["streams"]), *flags]) as generator:
        opened = generator.line(PATIENCE)
        opening = measure.cpu_seconds(pids) - opening
        measure.settled(lambda: measure.memory(pids).rss)
        after = measure.memory(pids)
        cpu, machine, began = measure.cpu_seconds(pids), measure.machine_cpu(), time.monotonic()
        time.sleep(seconds)  # the measured interval
        took = time.monotonic() - began
        cpu, machine = measure.cpu_seconds(pids) - cpu, measure.machine_cpu() - machine
        result = generator.finish(PATIENCE)
    streams = max(opened["opened"], 1)
    return {
        **opening_of(running.peer.target, result),
        "rss_per_stream": (after.rss - before.rss) / streams,
        "pss_per_stream": (after.pss - before.pss) / streams,
        "kernel_per_stream": (after.kernel - before.kernel) / streams,
        "idle_rss": before.rss,
        "open_cpu_us": 1e6 * opening / streams,
        "server_cpu": cpu / took,
        "cpu_us_per_stream": 1e6 * cpu / took / streams,
        "other_cpu": max(0.0, (machine - cpu) / took),
    }


def opening_of(target: Target, metrics: Metrics) -> Metrics:
    """Drop the opening's metrics if the peer answers only with the first event: then the generator timed its own
    connecting, and cannot see when a stream is open."""
    if not target.lazy_head:
        return metrics
    unseen = ("open_rate", "open_seconds", "open_latency_us")
    return {**{name: value for name, value in metrics.items() if name not in unseen}, "opening_unseen": True}


def ceiling(case: Case, seconds: float, joined: int) -> Metrics:
    """Measure the rate of bare sends from the server's core to as many sockets."""
    wire = case["size"] + ENVELOPE
    numbers = [case["streams"], wire, joined, seconds, SERVER_CPU, LOAD_CPU]
    done = subprocess.run(
        [str(build.ceiling()), *map(str, numbers)], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    result: Metrics = json.loads(done.stdout)
    return result
