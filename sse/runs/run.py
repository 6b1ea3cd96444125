"""One run, in the worker that owns it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from ..events.items import Item, as_message
from ..events.model import Event, InvalidEvent
from ..log import LogError
from ..runtime.cooperation import breathe, spawn, throw_into, turn_clock
from ..runtime.iterables import close_iterable
from .book import Claim
from .states import OPEN, Actor, Outcome, RunError, State, check_step
from .writer import LogAway, Source

logger = logging.getLogger("headwater.runs")

#: Seconds that a stopped iterable has to end; then the run ends without it.
STOP_PATIENCE: Final = 0.7
#: Items that an iterable which never waits may yield in a row; then others run. They take a millisecond.
PULLED_IN_A_ROW: Final = 50
# Seconds until the end is tried again that could not be stored: the first time, doubled up to the second.
_RETRY_FIRST: Final = 0.1
_RETRY_MOST: Final = 1.0


class Spawn(Protocol):
    """Runs work beside the caller (``sse.runtime.cooperation.spawn``)."""

    def __call__(self, work: Callable[[], object], name: str) -> Any: ...


class Taker(Protocol):
    """The writer, as a run sees it."""

    def put(self, run: Source, event: Event) -> bool: ...
    def wait_empty(self, run: Source) -> None: ...
    def wake(self) -> None: ...


class Run:
    """Pulls an iterable, and ends once. Its thread (a greenlet under gevent) does :meth:`work`.

    max_bytes: returns the limit of an event's data; in_context: calls its argument where the app's code may run;
    write_end: writes the end of this run, and raises LogError if it has to be called again.
    """

    def __init__(
        self,
        claim: Claim,
        iterable: Iterable[Item],
        writer: Taker,
        *,
        max_bytes: Callable[[], int],
        in_context: Callable[[Callable[[], None]], None],
        write_end: Callable[[Run], None],
        clock: Callable[[], float] = time.monotonic,
        spawn: Spawn = spawn,
    ) -> None:
        self.claim = claim
        self.claimed = False
        self.state = State.STARTING
        self.outcome: Outcome | None = None
        self.is_cut = False
        self.after = 0
        #: set once it is known whether it starts, once the iterable is closed, and once the run has ended
        self.begun, self.pulled, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.began = clock()
        self.end_tried = float("inf")  # when its end was first tried to be written
        # The writer's account.
        self.waiting: list[Event] = []
        self.waiting_bytes = 0
        self.events = 0
        self.flush_at = 0.0

        self._iterable = iterable
        self._iterator: Iterator[Item] | None = None
        self._writer = writer
        self._max_bytes = max_bytes
        self._in_context = in_context
        self._write_end = write_end
        self._spawn = spawn
        self._lock = threading.Lock()
        self._greenlet: Any = None
        self._inside = False  # the app's iterable is being asked for an item
        self._early: Outcome | None = None  # it is to be stopped as soon as it runs
        self._ending = False

    @property
    def channel(self) -> str:
        return self.claim.channel

    @property
    def takes(self) -> bool:
        return self.outcome is None

    def start(self) -> None:
        """Begin to pull."""
        with self._lock:
            self.advance(State.RUNNING, Actor.OWNER)
        if self._early is not None:
            self.conclude(self._early)  # the iterable is closed without a look at it
        self._greenlet = self._spawn(self.work, "sse-run")

    def advance(self, state: State, by: Actor) -> None:
        """Take a step of ``sse.runs.states.STEPS``."""
        check_step(self.state, state, by)
        self.state = state

    # ── pulling ─────────────────────────────────────────────────────────────────────────────────────────────

    def work(self) -> None:
        """Pull the iterable to its end, and end the run."""
        try:
            self._in_context(self._pull_all)
        except BaseException as error:  # the context's own, for instance of a database that is gone
            logger.error("the run %s failed", self.claim.run, exc_info=error)
            self.conclude(Outcome(State.ERROR, Actor.ITERABLE))
        self.pulled.set()
        self.end()

    def _pull_all(self) -> None:
        turn_began = turn_clock()
        turn, pulled = 0.0, 0
        try:
            while self.pull():
                pulled += 1
                if (now := turn_began()) != turn:
                    turn, pulled = now, 1
                if pulled >= PULLED_IN_A_ROW:
                    breathe()
                    pulled = 0
        finally:
            self.close()

    def pull(self) -> bool:
        """Take one item of the iterable; return whether there may be another one."""
        if not self.takes:
            return False
        try:
            item = self._next()
            if not self.takes:
                return False  # it was stopped meanwhile
            return self._writer.put(self, self._event(item))
        except StopIteration as end:
            self.conclude(Outcome(State.DONE, Actor.ITERABLE, usage=self._usage(end.value)))
        except LogAway:
            logger.error("the run %s is ended, because too much of it waits for the log", self.claim.run)
            self.conclude(Outcome(State.ERROR, Actor.OWNER, error="the log could not be reached"))
        except RunError as error:
            self.conclude(Outcome(State.ERROR, Actor.ITERABLE, error=str(error)))
        except BaseException as error:
            # gevent's Timeout and asyncio's CancelledError are errors of the iterable, too.
            if self.conclude(Outcome(State.ERROR, Actor.ITERABLE)):  # else it was told to end, and does
                logger.error("the iterable of the run %s raised", self.claim.run, exc_info=error)
        return False

    def _next(self) -> Item:
        self._inside = True
        try:
            if self._iterator is None:
                self._iterator = iter(self._iterable)
            return next(self._iterator)
        finally:
            self._inside = False

    def _event(self, item: Item) -> Event:
        """Make the event. Raises TypeError, InvalidEvent."""
        message = as_message(item)
        if message.id is not None:
            raise TypeError("the events of a run get their ids from the log, so an item cannot have one")
        limit = self._max_bytes()
        event = Event(self.channel, message.data, message.event, message.retry)
        size = len(event.data)
        if size > limit or (not event.data.isascii() and len(event.data.encode()) > limit):
            raise InvalidEvent("data", f"an event is at most {limit} bytes (SSE_MAX_EVENT_BYTES)")
        return event

    def _usage(self, value: object) -> object:
        """Return what the iterable returned, if it can be sent to clients."""
        try:
            if len(json.dumps(value, allow_nan=False)) <= self._max_bytes():
                return value
            problem = "it is larger than an event may be (SSE_MAX_EVENT_BYTES)"
        except (TypeError, ValueError, RecursionError) as error:
            problem = str(error)
        logger.error("what the iterable of the run %s returned is no usage: %s", self.claim.run, problem)
        return None

    def close(self) -> None:
        """Close the iterable."""
        iterator, self._iterator = self._iterator, None
        iterable, self._iterable = self._iterable, ()
        # A client library's stream is often an iterable that must be closed, not only its iterator.
        for one in (iterator, iterable if iterable is not iterator else None):
            try:
                close_iterable(one)
            except BaseException as error:
                logger.error("closing the iterable of the run %s failed", self.claim.run, exc_info=error)

    # ── ending ──────────────────────────────────────────────────────────────────────────────────────────────

    def conclude(self, outcome: Outcome) -> bool:
        """Decide how the run ends; only the first decision counts. Return whether this is it."""
        with self._lock:
            if self.outcome is not None or self.state not in OPEN:
                return False
            check_step(self.state, outcome.state, outcome.by)
            self.outcome = outcome
        self._writer.wake()
        return True

    def stop(self, outcome: Outcome) -> None:
        """End the run now: close its iterable where it stands. Returns at once."""
        with self._lock:
            if self.state is State.STARTING:
                self._early = self._early or outcome
                return
        if self.conclude(outcome):
            self._interrupt()
            self._spawn(self._insist, "sse-run-stop")

    def cut(self, outcome: Outcome, why: str) -> None:
        """End the run where it is: nothing more of it can be stored, not even an end."""
        with self._lock:
            if self.is_cut:
                return
            self.is_cut = True
            self.outcome = self.outcome or outcome
        logger.warning("the run %s is cut off after %d events: %s", self.claim.run, self.events, why)
        self._writer.wake()
        self._interrupt()
        if self.state is not State.STARTING:
            self._spawn(self._insist, "sse-run-stop")

    def _interrupt(self) -> None:
        """Raise GeneratorExit where the iterable waits. A thread can only be told at its next item."""
        if self._greenlet is not None:
            throw_into(self._greenlet, GeneratorExit, lambda: self._inside)

    def _insist(self) -> None:
        """End a run whose iterable does not end."""
        if not self.pulled.wait(STOP_PATIENCE):
            logger.warning(
                "the iterable of the run %s goes on though it was told to stop; nothing that it yields is stored",
                self.claim.run,
            )
            self.end()

    def end(self) -> None:
        """Store what waits, then the end. Whoever calls it second returns at once."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
        delay = _RETRY_FIRST
        self._writer.wait_empty(self)
        while not self.try_end():
            time.sleep(delay)
            delay = min(delay * 2, _RETRY_MOST)

    def try_end(self) -> bool:
        """Store the end, when nothing of the run waits; return whether that is done."""
        try:
            self._write_end(self)
        except LogError as error:
            logger.info("the end of the run %s cannot be stored yet: %s", self.claim.run, error)
            return False
        except Exception:
            logger.exception("writing the end of the run %s failed; it is tried again", self.claim.run)
            return False
        self.ended.set()
        return True
