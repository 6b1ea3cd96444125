"""The figures of docs/scaling.md: ``python -m tests.chaos.measure latency throughput back followers worker redis``.

Redis (append-only file, fsync every second), the instances and the clients all run on this machine. Each measurement
prints its figures beside the machine's load average.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from typing import Any

from sse.events.model import Event
from sse.log import open_log
from tests.chaos.fleet import KEY, Fleet
from tests.chaos.reader import reckon
from tests.live.crowd import Crowd
from tests.support.redis_server import RedisServer
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/x-ndjson"}
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return a process's CPU time in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def share(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def say(what: str) -> None:
    print(f"{what}\n    load average {', '.join(f'{load:.1f}' for load in os.getloadavg())}", flush=True)


def in_ms(values: Sequence[float]) -> str:
    parts = ((f"p{round(part * 100)}", share(values, part) * 1000) for part in (0.5, 0.9, 0.99))
    return ", ".join(f"{name} {value:.2f} ms" for name, value in parts) + f", most {max(values) * 1000:.0f} ms"


STAMP = re.compile(rb"data: t([0-9]+)\n\n")


def stamp() -> str:
    """Return an event's data: the time now."""
    return f"t{time.monotonic_ns()}"


# ── append → written on another instance ────────────────────────────────────────────────────────────────


def publish_on_schedule(port: int, rate: float, seconds: float, number: int) -> None:
    """Publish in an open loop: event i is due at start + i / rate, and carries the time of its sending."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    start = time.monotonic()
    for i in range(int(rate * seconds)):
        due = start + i / rate
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        connection.request("POST", f"/events/m{number}", stamp(), HEADERS)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201, answer.status


def listen(port: int, streams: int, results: Any, stop: ProcessEvent) -> None:
    """Read some streams as cheaply as possible. Put every event's time from ``stamp`` until it was read, and the seconds
    from the first stamp to the last."""
    took: list[float] = []
    made: list[int] = []
    rest: dict[socket.socket, bytes] = {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for n in range(streams):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.sendall(f"GET /events/m{n} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            opening = b""
            while b"retry:" not in opening:
                opening += (piece := sock.recv(65536))
                assert piece, opening
            rest[sock] = b""
            selector.register(sock, selectors.EVENT_READ)
        results.put("ready")
        while not stop.is_set():
            for key, _ in selector.select(0.2):
                sock = key.fileobj  # type: ignore[assignment]
                text = rest[sock] + sock.recv(1 << 20)
                now, end = time.monotonic_ns(), 0
                for found in STAMP.finditer(text):
                    made.append(int(found[1]))
                    took.append((now - made[-1]) / 1e9)
                    end = found.end()
                rest[sock] = text[end:][-200:]
    results.put((took, (max(made) - min(made)) / 1e9))


def append_stamps(url: str, rate: int, seconds: float, streams: int) -> None:
    """Append in the same open loop from a separate process, so that timing begins at the append."""
    log = open_log(url, retain_events=100_000, retain_seconds=86_400)
    start = time.monotonic()
    for i in range(int(rate * seconds)):
        if (left := start + i / rate - time.monotonic()) > 0:
            time.sleep(left)
        log.append([Event(f"m{i % streams}", stamp())])
    log.close()


def latency(rate: int = 1000, seconds: float = 10.0, streams: int = 4) -> None:
    """Time from an append, and from a publisher's first byte to one instance, to a client's last byte from another."""
    context = multiprocessing.get_context("spawn")
    with Fleet(2, direct=True, redis={"appendfsync": "everysec"}) as fleet:
        publishing, writing = fleet.servers

        def measure(what: str, writers: Sequence[Any]) -> None:
            results, stop = context.Queue(), context.Event()
            reader = context.Process(target=listen, args=(writing.port, streams, results, stop))
            reader.start()
            assert results.get(timeout=20) == "ready"
            worker, redis = writing.worker_pids()[0], fleet.redis.process.pid
            before, begun = (cpu(worker), cpu(redis)), time.monotonic()
            for process in writers:
                process.start()
            for process in writers:
                process.join()
            spent = time.monotonic() - begun
            used = cpu(worker) - before[0], cpu(redis) - before[1]
            time.sleep(0.5)
            stop.set()
            took, span = results.get(timeout=20)
            reader.join()
            say(
                f"latency: {len(took)} events at {len(took) / span:.0f}/s, {what}: {in_ms(took)}; "
                f"the instance that writes {used[0] / spent:.0%}, Redis {used[1] / spent:.0%} of a core"
            )

        one = [context.Process(target=append_stamps, args=(fleet.redis.url, rate, seconds, streams))]
        measure("from the call of append to read from an instance", one)
        say(f"    its own histogram, from the id's clock (in whole ms): {quantiles(writing, 'sse_delivery_seconds')}")
        many = [
            context.Process(target=publish_on_schedule, args=(publishing.port, rate / streams, seconds, n))
            for n in range(streams)
        ]
        measure("from a publisher's first byte to one instance to read from the other", many)


def quantiles(server: Any, name: str) -> str:
    """Estimate p50 and p99 from a histogram's buckets, like Prometheus's histogram_quantile."""
    text = server.request("GET", "/metrics", port=server.health_port).text
    buckets: dict[float, float] = {}
    for line in text.splitlines():
        if line.startswith(f"{name}_bucket"):
            bound = float(line.partition('le="')[2].partition('"')[0])
            buckets[bound] = buckets.get(bound, 0.0) + float(line.split()[-1])
    total = max(buckets.values(), default=0.0)
    found = []
    for part in (0.5, 0.99):
        low = below = 0.0
        for bound, count in sorted(buckets.items()):
            if count >= total * part:
                found.append(low + (bound - low) * (total * part - below) / max(count - below, 1))
                break
            low, below = bound, count
    return f"p50 {found[0] * 1000:.1f} ms, p99 {found[1] * 1000:.1f} ms" if len(found) == 2 else "empty"


# ── one follower and a flood ────────────────────────────────────────────────────────────────────────────


def flood(url: str, rate: int, seconds: float, size: int) -> None:
    log = open_log(url, retain_events=200_000, retain_seconds=86_400)
    start, sent = time.monotonic(), 0
    while sent < rate * seconds:
        log.append([Event(f"c{n % 100}", "x" * size) for n in range(1000)])
        sent += 1000
        if (left := start + sent / rate - time.monotonic()) > 0:
            time.sleep(left)
    print(f"    appended {sent} events in batches of 1000 in {time.monotonic() - start:.1f} s", flush=True)
    log.close()


def throughput(rate: int = 50_000, seconds: float = 10.0, size: int = 100) -> None:
    """Measure whether one worker's follower keeps up with this many events a second."""
    context = multiprocessing.get_context("spawn")
    with Fleet(1, direct=True, redis={"appendfsync": "everysec"}, SSE_RETAIN_EVENTS=200_000, SSE_HEARTBEAT=15) as fleet:
        server = fleet.servers[0]
        worker, redis = server.worker_pids()[0], fleet.redis.process.pid
        with SSEClient(server.port, "/events/c7") as client:
            used = cpu(worker), cpu(redis)
            begun = time.monotonic()
            process = context.Process(target=flood, args=(fleet.redis.url, rate, seconds, size))
            process.start()
            got, delays, last = 0, [], 0.0
            goal = int(rate * seconds) // 100
            while got < goal:
                block = client.next_event(20)
                if not block.is_control:
                    got += 1
                    last = time.monotonic()
                    delays.append(time.time() - int((block.id or "0-0").split("-")[0]) / 1000)
            process.join()
            took = last - begun
        say(
            f"throughput: {goal * 100} events of {size} B at {rate}/s; a stream of one channel in a hundred got its "
            f"{got} within {in_ms(delays)}; worker {(cpu(worker) - used[0]) / took:.0%}, "
            f"Redis {(cpu(redis) - used[1]) / took:.0%} of a core"
        )


# ── fifty followers ─────────────────────────────────────────────────────────────────────────────────────


def follow(url: str, count: int, results: Any, stop: ProcessEvent) -> None:
    """Run this many followers, like workers'; the ids' clock is too coarse, so the data carries the time."""
    took: list[list[float]] = [[] for _ in range(count)]
    quit = threading.Event()
    logs = [open_log(url, retain_events=100_000, retain_seconds=86_400) for _ in range(count)]

    def run(log: Any, mine: list[float]) -> None:
        for batch in log.follow(log.bounds().latest, quit):
            now = time.monotonic_ns()
            mine += [(now - int(record.data)) / 1e9 for record in batch]

    threads = [threading.Thread(target=run, args=pair) for pair in zip(logs, took, strict=True)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    results.put("ready")
    stop.wait()
    quit.set()
    for log in logs:
        log.close()
    for thread in threads:
        thread.join(5)
    results.put([len(mine) for mine in took])
    results.put([value for mine in took for value in mine[:: max(count // 5, 1)]])


def append_on_schedule(url: str, rate: int, seconds: float) -> None:
    log = open_log(url, retain_events=100_000, retain_seconds=86_400)
    start = time.monotonic()
    for i in range(int(rate * seconds)):
        if (left := start + i / rate - time.monotonic()) > 0:
            time.sleep(left)
        log.append([Event("a", f"{time.monotonic_ns()}")])
    log.close()


def followers(counts: Sequence[int] = (1, 10, 50), rate: int = 1000, seconds: float = 8.0) -> None:
    """Measure what followers cost Redis: each reads each event once."""
    context = multiprocessing.get_context("spawn")
    for count in counts:
        with RedisServer(appendfsync="everysec") as redis:
            results, stop = context.Queue(), context.Event()
            groups = [count // 4 + (n < count % 4) for n in range(4)]
            processes = [
                context.Process(target=follow, args=(redis.url, group, results, stop)) for group in groups if group
            ]
            for process in processes:
                process.start()
            for _ in processes:
                assert results.get(timeout=30) == "ready"
            before, begun = cpu(redis.process.pid), time.monotonic()
            writer = context.Process(target=append_on_schedule, args=(redis.url, rate, seconds))
            writer.start()
            writer.join()
            took = time.monotonic() - begun
            used = cpu(redis.process.pid) - before
            time.sleep(0.5)
            stop.set()
            read: list[int] = []
            delays: list[float] = []
            for _ in range(2 * len(processes)):
                part = results.get(timeout=30)
                (read if isinstance(part[0], int) else delays).extend(part)
            for process in processes:
                process.join()
            complete = sum(number == rate * seconds for number in read)
            say(
                f"followers: {count} at {rate} events/s: {complete} of {count} read all; append to read "
                f"{in_ms(delays)}; Redis {used / took:.0%} of a core"
            )


# ── one worker ──────────────────────────────────────────────────────────────────────────────────────────


def worker(counts: Sequence[int] = (0, 1000, 5000), rate: int = 20) -> None:
    """Measure one worker's memory by its streams, and what events to all of them cost."""
    for count in counts:
        with Fleet(1, direct=True, redis={"appendfsync": "everysec"}, SSE_HEARTBEAT=15) as fleet:
            server = fleet.servers[0]
            pid = server.worker_pids()[0]
            with Crowd(server.port, "/events/a", count) as crowd:
                crowd.wait_open(120)
                eventually(lambda: True, 1)
                memory = resident_mb(pid)
                used, begun = cpu(pid), time.monotonic()
                with fleet.recorder(server.port, rate=rate, channels=("a",), size=100) as recorder:
                    recorder.progress(rate * 5, 60)
                took = time.monotonic() - begun
                real = len(recorder.acknowledged) / took
                say(
                    f"worker: {count} streams: {memory:.0f} MB; {real:.0f} events/s to all of them: "
                    f"{(cpu(pid) - used) / took:.0%} of a core"
                )


# ── one Redis ───────────────────────────────────────────────────────────────────────────────────────────


def one_redis(number: int = 50_000, size: int = 200) -> None:
    """Measure what an event costs Redis in memory and time, alone and in batches."""
    with RedisServer(appendfsync="everysec") as redis:
        log = open_log(redis.url, retain_events=10**9, retain_seconds=86_400)
        pid, empty = redis.process.pid, redis.run("INFO", "memory")["used_memory"]
        for batch in (1, 1000):
            count = number if batch > 1 else number // 5
            used, begun = cpu(pid), time.monotonic()
            for n in range(0, count, batch):
                log.append([Event(f"c{k % 100}", "x" * size) for k in range(n, n + batch)])
            took = time.monotonic() - begun
            each = (cpu(pid) - used) / count * 1e6
            say(f"redis: {count} events of {size} B by {batch}: {count / took:.0f}/s, {each:.1f} us of Redis each")
        held = redis.run("XLEN", "{headwater}:events")
        each = (redis.run("INFO", "memory")["used_memory"] - empty) / held
        say(f"redis: {held} events of {size} B take {each:.0f} B each")
        log.close()


# ── Redis away and back ─────────────────────────────────────────────────────────────────────────────────


def back(times: int = 5, away: float = 3.0) -> None:
    """Kill Redis several times, and time from its return until clients behind nginx read their first event."""
    first: list[float] = []
    with Fleet(2) as fleet, contextlib.ExitStack() as stack:
        readers = fleet.readers(stack, 6)
        with fleet.recorder() as recorder:
            for _ in range(times):
                recorder.progress()
                fleet.redis.kill()
                time.sleep(away)
                fleet.redis.start()
                up = time.monotonic()
                first += [reader.wait_for_first_after(up, 10) - up for reader in readers]
        reckon(f"kill -9 of Redis, {times} times", readers, recorder.finish())
    say(f"back: {times} returns of Redis after {away:g} s, {len(readers)} clients: first event after {in_ms(first)}")


COMMANDS: dict[str, Callable[[], None]] = {
    "latency": latency,
    "throughput": throughput,
    "followers": followers,
    "worker": worker,
    "redis": one_redis,
    "back": back,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=COMMANDS, nargs="+")
    for what in parser.parse_args().what:
        COMMANDS[what]()
