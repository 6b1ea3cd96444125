"""A small world for runs: several workers on one log, a clock, and everything that can go wrong, one step at a time.

The runs are the real thing; only their threads are missing. What a thread would do, :class:`Place` does when it is told
to, so a test decides in which order things happen. The log is a real engine. Its notes are here, because their expiry
has to go by the world's clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from sse.events.model import Record
from sse.log import Log, LogUnavailable
from sse.log.base import ANY
from sse.runs.manager import Runs
from sse.runs.run import Run
from sse.runs.states import ENDS
from sse.settings import Settings
from sse.streams.stats import Stats

T = TypeVar("T")

#: Seconds between two turns of everybody's duties.
TURN = 0.5
SETTINGS = Settings.from_mapping({})


class Dead(BaseException):
    """The worker has died at this very step."""


class Link:
    """The log, as one worker reaches it."""

    shared = True
    notices_gaps = False

    def __init__(self, world: World) -> None:
        self.world = world
        self.away = False  # this worker cannot reach it
        self.loses_answer = False  # the next call is carried out, and its answer is lost
        self.dies_in: int | None = None  # calls until the worker dies: before the call, or after it
        self.dies_after = False

    def _call(self, work: Callable[..., T], *args: Any, **named: Any) -> T:
        dies = self.dies_in == 0
        if self.dies_in:
            self.dies_in -= 1
        if dies and not self.dies_after:
            raise Dead
        if self.away or self.world.log_away:
            raise LogUnavailable("it is away", stored="no")
        found = work(*args, **named)
        if dies:
            raise Dead
        if self.loses_answer:
            self.loses_answer = False
            raise LogUnavailable("no answer", stored="unknown")
        return found

    def append(self, *args: Any, **named: Any) -> Any:
        return self._call(self.world.log.append, *args, **named)

    def read(self, *args: Any) -> Any:
        return self._call(self.world.log.read, *args)

    def closed(self, *args: Any) -> Any:
        return self._call(self.world.log.closed, *args)

    def bounds(self) -> Any:
        return self._call(self.world.log.bounds)

    def put_note(self, *args: Any, **named: Any) -> Any:
        return self._call(self.world.put_note, *args, **named)

    def notes(self, kind: str) -> Any:
        return self._call(self.world.notes, kind)

    def drop_note(self, kind: str, name: str) -> Any:
        return self._call(self.world.drop_note, kind, name)


class Place:
    """A worker.

    frozen: nothing of it moves (SIGSTOP, a suspended machine); troubled: something went wrong with it, or with its way
    to the log, so its runs may be lost.
    """

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.link = Link(world)
        self.dead = self.frozen = False
        self.troubled = False
        log: Any = self.link
        self.runs = Runs(
            log,
            SETTINGS,
            Stats(),
            clock=world.time,
            spawn=lambda work, name: None,
        )
        self.position = 0
        self._renew_at = self._look_at = 0.0

    def of_mine(self) -> list[Run]:
        return list(self.runs._runs.values())

    def pull(self, run: Run, times: int) -> None:
        """What the run's thread does, up to its end."""
        for _ in range(times):
            if run.pulled.is_set():
                return
            if not run.pull():
                run.close()
                run.pulled.set()

    def flush(self) -> None:
        for _ in range(5):
            if self.runs.writer.pause() == 0:
                self.runs.writer.flush()

    def finish(self) -> None:
        """Write the ends that are due."""
        for run in self.of_mine():
            if run.outcome is not None and not run.ended.is_set():
                self.pull(run, 1)  # its thread closes the iterable
                if self.runs.writer.empty(run):
                    run.try_end()

    def hear(self) -> None:
        """What the tailer does."""
        for record in self.link.read(("_control",), self.position, 1000, 10**6):
            self.position = record.position
            self.runs.on_stop(json.loads(record.data))

    def turn(self) -> None:
        """Everything that this worker does by the clock."""
        with suppress(LogUnavailable):
            self.hear()
        self.flush()
        self.finish()
        now = self.world.now
        if now >= self._renew_at:
            self._renew_at = now + self.runs.renew()
        if now >= self._look_at:
            self._look_at = now + self.runs.look()


class World:
    """log: an engine; the world closes nothing."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.now = 1000.0
        self.ahead = 0.0  # of the log's clock, seconds
        self.log_away = False
        self.places: list[Place] = []
        self.counts: Counter[str] = Counter()
        self._notes: dict[tuple[str, str], tuple[str, float]] = {}
        self._labels = 0
        self._checked = 0  # through this position of the log
        #: which iterables were pulled, by channel and key
        self.pulled: dict[tuple[str, str], set[str]] = {}
        #: channels that somebody else has closed
        self.closed: set[str] = set()
        #: whose run it was, by its id
        self.owners: dict[str, Place] = {}

    def time(self) -> float:
        return self.now

    @property
    def log_now(self) -> float:
        """The time by which notes expire."""
        return self.now + self.ahead

    # ── notes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _present(self, kind: str, name: str) -> str | None:
        value, expires = self._notes.get((kind, name), ("", 0.0))
        return value if expires > self.log_now else None

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Any = ANY) -> bool:
        if expected is not ANY and expected != self._present(kind, name):
            return False
        self._notes[kind, name] = value, self.log_now + seconds
        return True

    def notes(self, kind: str) -> dict[str, str]:
        now = self.log_now
        return {name: value for (k, name), (value, expires) in self._notes.items() if k == kind and expires > now}

    def drop_note(self, kind: str, name: str) -> None:
        self._notes.pop((kind, name), None)

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────

    def add(self) -> Place:
        place = Place(self, len(self.places))
        self.places.append(place)
        return place

    def moving(self) -> list[Place]:
        return [place for place in self.places if not place.frozen and not place.dead]

    def doing(self, place: Place, work: Callable[[], object]) -> None:
        """Let a worker do something, in the middle of which it may die."""
        try:
            work()
        except Dead:
            self.counts["died in the middle"] += 1
            place.dead = place.troubled = True

    def run_for(self, seconds: float) -> None:
        """Let time pass; everybody who can does what is due."""
        until = self.now + seconds
        while self.now < until:
            self.now += TURN
            for place in self.moving():
                self.doing(place, place.turn)

    def items(self, channel: str, key: str | None, count: int, end: str) -> Iterator[str]:
        """An iterable: ``count`` items, then its end. Notes that it was pulled."""
        self._labels += 1
        label = f"{self._labels}"

        def work() -> Iterator[str]:
            if key is not None:
                self.pulled.setdefault((channel, key), set()).add(label)
            for number in range(count):
                yield f"{label}:{number}"
            if end == "raises":
                raise RuntimeError("on purpose")
            while end == "endless":
                number += 1
                yield f"{label}:{number}"

        return work()

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────

    def channel(self, name: str) -> list[Record]:
        return self.log.read((name,), 0, 10**6, 10**9)

    def check(self, channels: tuple[str, ...]) -> None:
        """At every moment: one end at most, nothing behind it, items once and in order."""
        latest = self.log.bounds().latest
        if latest == self._checked:
            return
        self._checked = latest
        for channel in channels:
            ended: dict[str, dict[str, Any]] = {}
            open_label, count = "", 0
            over: set[str] = set()
            for record in self.channel(channel):
                if record.event == "run":
                    end = json.loads(record.data)
                    assert end["run"] not in ended, f"{channel}: a second end, {end} after {ended[end['run']]}"
                    assert end["state"] in ENDS
                    assert end["events"] == count, f"{channel}: {end} after {count} items"
                    ended[end["run"]] = end
                    over.add(open_label)
                    open_label, count = "", 0
                    self._not_in_vain(end)
                elif record.event is None:
                    label, _, number = record.data.partition(":")
                    assert label not in over, f"{channel}: the item {record.data} after the end of its run"
                    assert label == (open_label or label), f"{channel}: {record.data} between items of {open_label}"
                    assert int(number) == count, f"{channel}: {record.data} after {count} items"
                    open_label, count = label, count + 1
            if self.closed.isdisjoint({channel}):
                closes = [record for record in self.channel(channel) if record.event == "stream-end"]
                assert len(closes) <= 1
        for (channel, key), labels in self.pulled.items():
            assert len(labels) == 1, f"{channel}: the key {key} has started {len(labels)} times"

    def _not_in_vain(self, end: dict[str, Any]) -> None:
        owner = self.owners.get(end["run"])
        if end["state"] == "lost" and "error" not in end and owner is not None:
            assert owner.troubled, f"{end}, but its worker was never in trouble"

    def settle(self, channels: tuple[str, ...]) -> None:
        """Let all trouble end, and everything come to its end; then every run must have one."""
        self.log_away = False
        for place in self.places:
            place.link.away = place.link.loses_answer = False
            place.frozen, place.link.dies_in = False, None
        if not self.moving():
            self.add()
        self.run_for(3)
        for place in self.moving():
            for run in place.of_mine():
                place.runs.stop_here(run.claim.run)
        self.run_for(30)
        self.check(channels)
        assert not any(self.notes("run-channel").values()), f"claims are left: {self.notes('run-channel')}"
        for place in self.moving():
            assert not place.of_mine()
        for channel in channels:
            ends = [json.loads(record.data) for record in self.channel(channel) if record.event == "run"]
            by_id = {end["run"]: end for end in ends}
            for run, text in self.notes(f"run:{channel}").items():
                told = json.loads(text)[2]
                if channel in self.closed and run not in by_id:
                    assert told in ENDS
                    continue
                assert run in by_id, f"{run} has no end; it is told to be {told}"
                assert told == by_id[run]["state"], f"{run} is told to be {told}, its end is {by_id[run]}"
                self.counts[told] += 1
            labels = {r.data.partition(":")[0] for r in self.channel(channel) if r.event is None}
            if channel not in self.closed:
                assert len(labels) <= len(ends), f"{channel}: items of {len(labels)} runs, and {len(ends)} ends"
