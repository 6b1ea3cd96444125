"""Runs in a fleet: who starts them, who watches them, and the books: what was yielded was seen once by every reader."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from tests.chaos.fleet import KEY, Fleet
from tests.chaos.reader import BOOK, Reader, Reckoning, stop_all
from tests.support.server import Answer

AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
#: Seconds within which a run whose worker died is told to be lost.
LOST_WITHIN = 10.0


class Started(NamedTuple):
    """A run. pid: the worker that has it."""

    run: str
    channel: str
    pid: int


class Runs:
    """Starts and stops runs of ``tests.chaos.runs_app``. Each has a channel of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def request(self, method: str, target: str, port: int | None = None) -> Answer:
        """Send a request through nginx, or to one instance; repeat what a fault has cut off."""
        return self._fleet.servers[0].request(
            method, target, headers=AUTHORIZATION, port=port or self._fleet.port, timeout=15
        )

    def start(self, port: int | None = None, *, channel: str | None = None, **options: Any) -> Started:
        """Start a run. options: those of the route ``/start/<channel>``."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        answer = self.request("POST", f"/start/{channel or f'run-{uuid.uuid4().hex[:12]}'}?{query}", port)
        assert answer.status == 201, f"{answer.status} {answer.body!r}"
        told = answer.json()
        return Started(told["run"], told["channel"], int(told["pid"]))

    def on(self, pid: int, port: int, **options: Any) -> Started:
        """Start a run on one of an instance's workers."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            started = self.start(port, **options)
            if started.pid == pid:
                return started
            self.stop(started.run, port)
        raise AssertionError(f"the worker {pid} gets no request")

    def stop(self, run: str, port: int | None = None) -> int:
        """Stop a run; return the answer's status."""
        return self.request("POST", f"/runs/{run}/stop", port).status

    def told(self, run: str, port: int | None = None) -> dict[str, Any]:
        answer = self.request("GET", f"/runs/{run}", port)
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    def noted(self, channel: str) -> list[str]:
        """What became of the iterables of a channel, in order."""
        lines = self._fleet.book.read_text().splitlines()
        return [line.split()[0] for line in lines if line.split()[1] == channel]


class RunReader(Reader):
    """Watches a run's channel from its beginning to its end, as a page with an EventSource does."""

    def __init__(self, port: int, started: Started) -> None:
        super().__init__(port, [started.channel])
        self._target += "&since=earliest"
        self.started = started

    def use(self, port: int) -> None:
        """Connect there from the next time on."""
        self._port = port

    @property
    def tokens(self) -> list[str]:
        return [one.data for one in self.ledger if one.event is None]

    @property
    def ends(self) -> list[dict[str, Any]]:
        return [json.loads(block.data or "") for _, block in self.diary if block.event == "run"]

    def end_seen(self) -> float:
        """When the run's end arrived."""
        return next(at for at, block in self.diary if block.event == "run")

    def wait_for_tokens(self, count: int, timeout: float = 10.0) -> None:
        self.wait_for(lambda _: len(self.tokens) >= count, timeout)


def watch(stack: ExitStack, runs: Sequence[Started], port: int, each: int = 2) -> list[RunReader]:
    """Let some readers watch each run, until the end of the test."""
    readers = [stack.enter_context(RunReader(port, one)) for one in runs for _ in range(each)]
    stack.callback(stop_all, readers)
    for reader in readers:
        reader.wait_connected(10)
    return readers


def settle(
    fault: str, readers: Sequence[RunReader], states: Collection[str], *, timeout: float = 20.0, note: str = ""
) -> list[dict[str, Any]]:
    """Check that every reader saw each token of its run once, in order, and then one end, and was told by 204 that
    there is no more; return the runs' ends."""
    ends: dict[str, dict[str, Any]] = {}
    for reader in readers:
        reader.wait_for(lambda _, one=reader: one.is_over or one.failed, timeout)  # type: ignore[misc]
        assert reader.failed is None, f"a browser would have given up for ever: {reader.failed}"
        (end,) = reader.ends
        assert end["run"] == reader.started.run
        assert end["state"] in states, f"{reader}: {end}"
        assert reader.tokens == [str(number) for number in range(end["events"])], f"{reader}: {end}, {reader.tokens}"
        assert not reader.resets, f"there was nothing to tell: {reader.resets}"
        assert ends.setdefault(end["run"], end) == end, "two readers were told two ends"
    seen = sum(len(reader.tokens) for reader in readers)
    note_runs(fault, list(ends.values()), len(readers), seen, sum(reader.reconnects for reader in readers), note)
    return list(ends.values())


def note_runs(
    fault: str, ends: Sequence[dict[str, Any]], readers: int, seen: int, reconnects: int, note: str = ""
) -> None:
    """Enter what a fault has done to runs into the book."""
    states = Counter(end["state"] for end in ends)
    told = [f"{len(ends)} runs, each with one end", *(f"{states[state]} {state}" for state in sorted(states))]
    tokens = sum(end["events"] for end in ends)
    BOOK.append(Reckoning(fault, tokens, readers, seen, reconnects, 0, 0, ", ".join(told) + (note and f"; {note}")))
