"""A model of channels that are shared among several logs: the scheme of docs/sharding.md, in steps of a millisecond.

Logs have clocks that are wrong, drift and are set; they are away at times. Publishers append, channels move to another
log, workers read each log after delays of its own. Streams read channels of several logs, lose their connection, and
resume in another worker with nothing but the last id they were sent. `run` returns what went wrong, in words.

``python -m tests.sse.log.sharding 2000`` tries so many seeds.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

LOG_BITS = 3  # the lowest bits of an id: the number of its log
TICKS = 64  # ids of a log in a millisecond
STEPS = 300
SETTLE = 40  # steps at the end, in which nobody publishes and everything works


@dataclass(frozen=True)
class Scheme:
    """What is promised. Each part can be left out, and then the model must find what breaks.

    watermark: an event is sent once every log of the stream has gone beyond its id.
    own_ids: the log's number is part of the id.
    durable: a tick survives the crash of its log, as an event does.
    fence: a channel moves to another log only once that log is beyond all ids of the old one.
    """

    watermark: bool = True
    own_ids: bool = True
    durable: bool = True
    fence: bool = True

    def without(self, part: str) -> Scheme:
        return replace(self, **{part: False})


class Entry(NamedTuple):
    """An event, the ``number``-th of its channel; or a tick, which has no channel."""

    id: int
    channel: str
    number: int


@dataclass
class Log:
    number: int
    scheme: Scheme
    offset: float  # of its clock, ms
    drift: float
    entries: list[Entry] = field(default_factory=list)
    latest: int = 0
    lasting: int = 0  # what a crash leaves of ``latest``
    away_until: int = 0

    def clock(self, now: int) -> int:
        return max(0, int(now * self.drift + self.offset)) * TICKS

    def _next(self, least: int) -> int:
        """Return the smallest id of this log that is at least so large, and beyond all it has given out."""
        id = max(least, self.latest + 1)
        if not self.scheme.own_ids:
            return id
        size = 1 << LOG_BITS
        return id + (self.number - id) % size

    def append(self, now: int, channel: str, number: int) -> None:
        self.latest = self.lasting = self._next(self.clock(now))
        self.entries.append(Entry(self.latest, channel, number))

    def tick(self, now: int, seen: int) -> None:
        """Promise that no id up to this one is given out any more. seen: the highest id of the other logs."""
        self.latest = self._next(max(self.clock(now), seen))
        if self.scheme.durable:
            self.lasting = self.latest
        self.entries.append(Entry(self.latest, "", 0))

    def crash(self, now: int, choice: random.Random) -> None:
        self.latest = self.lasting
        self.away_until = now + choice.randint(1, 25)
        self.offset += choice.choice((0, -30, 30))


class Worker:
    """Has read a part of each log."""

    def __init__(self, logs: list[Log]) -> None:
        self.logs = logs
        self.read = [0] * len(logs)
        self.stalled = [0] * len(logs)
        self.arrived: list[Entry] = []

    def follow(self, now: int, choice: random.Random, *, all: bool = False) -> None:
        for n in choice.sample(range(len(self.logs)), len(self.logs)):
            log = self.logs[n]
            if not all and (now < self.stalled[n] or now < log.away_until):
                continue
            if choice.random() < 0.1:
                self.stalled[n] = now + choice.randint(1, 15)
            self.arrived += log.entries[self.read[n] :]
            self.read[n] = len(log.entries)

    def watermark(self, logs: set[int]) -> int:
        return min(self.logs[n].entries[self.read[n] - 1].id if self.read[n] else 0 for n in logs)


class Stream:
    """One client, over all its connections."""

    def __init__(self, channels: frozenset[str], worker: Worker) -> None:
        self.channels = channels
        self.cursor = 0
        self.got: list[Entry] = []
        self.connect(worker)

    def connect(self, worker: Worker) -> None:
        self.worker = worker
        self.seen = 0

    def turn(self, scheme: Scheme, logs: set[int]) -> None:
        """Send what may be sent. logs: those that may have, or have had, events of its channels."""
        if scheme.watermark:
            through = self.worker.watermark(logs)
            new = sorted(e for e in self.worker.arrived if self.cursor < e.id <= through and e.channel in self.channels)
            self.got += new
            self.cursor = max(self.cursor, through)  # as a heartbeat's id says it
            return
        resuming = self.seen == 0
        for entry in self.worker.arrived[self.seen :]:
            if entry.channel in self.channels and not (resuming and entry.id <= self.cursor):
                self.got.append(entry)
                self.cursor = entry.id
        self.seen = len(self.worker.arrived)


def run(seed: int, scheme: Scheme, logs: int = 3, channels: int = 6, streams: int = 6) -> Iterator[str]:
    """Let all of it happen; yield what a client would complain of."""
    choice = random.Random(seed)
    shards = [Log(n, scheme, choice.uniform(-40, 40), choice.uniform(0.98, 1.02)) for n in range(logs)]
    names = [f"c{n}" for n in range(channels)]
    home = {name: n % logs for n, name in enumerate(names)}
    had = {name: {number} for name, number in home.items()}  # by channel: the logs that may hold some of it
    count = dict.fromkeys(names, 0)
    workers = [Worker(shards) for _ in range(3)]
    readers = [
        Stream(frozenset(choice.sample(names, choice.randint(1, channels))), choice.choice(workers))
        for _ in range(streams)
    ]
    for now in range(STEPS + SETTLE):
        settled = now >= STEPS
        seen = max(log.latest for log in shards)
        for log in shards:
            if now < log.away_until and not settled:
                continue
            if not settled and choice.random() < 0.02:
                log.crash(now, choice)
            elif settled or choice.random() < 0.25:
                log.tick(now, seen)
        for name in names:
            log = shards[home[name]]
            if settled or now < log.away_until:
                continue
            if choice.random() < 0.15:
                log.append(now, name, count[name])
                count[name] += 1
            if choice.random() < 0.01:
                target = choice.choice(shards)
                if now >= target.away_until:
                    if scheme.fence:
                        target.tick(now, log.latest)
                    home[name] = target.number
                    had[name].add(target.number)
        for worker in workers:
            worker.follow(now, choice, all=now >= STEPS + SETTLE // 2)
        for stream in readers:
            if choice.random() < 0.05:
                stream.connect(choice.choice(workers))
            stream.turn(scheme, set().union(*(had[name] for name in stream.channels)))
    stored = sorted(entry for log in shards for entry in log.entries if entry.channel)
    ids = [entry.id for entry in stored]
    if len(set(ids)) < len(ids):
        yield "two events have one id"
    for stream in readers:
        due = [entry for entry in stored if entry.channel in stream.channels]
        if set(stream.got) < set(due):
            yield "an event was lost"
        if len(set(stream.got)) < len(stream.got):
            yield "an event was sent twice"
        if stream.got != sorted(stream.got):
            yield "events were sent out of the order of their ids"
        for name in stream.channels:
            numbers = [entry.number for entry in stream.got if entry.channel == name]
            if numbers != sorted(numbers):
                yield "a channel's events were sent in another order than they were published in"


def main() -> None:
    seeds = int(sys.argv[1])
    schemes = {"all of it": Scheme()}
    schemes |= {f"without {part}": Scheme().without(part) for part in Scheme.__dataclass_fields__}
    for name, tried in schemes.items():
        found: dict[str, int] = {}
        for seed in range(seeds):
            for wrong in set(run(seed, tried)):
                found[wrong] = found.get(wrong, 0) + 1
        told = "; ".join(f"{wrong}: {number} of {seeds} runs" for wrong, number in sorted(found.items()))
        print(f"{name}: {told or 'nothing is wrong'}", flush=True)


if __name__ == "__main__":
    main()
