"""Groups: streams with the same subscription share one pending list and one chunk per fan-out pass.

A stream that covers several channels must be delivered in id order across all of them, else one
``Last-Event-ID`` could not resume it. So what is joined into chunks is the subscription, not the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..events.model import Frame
from ..events.trace import Trace


class Member(Protocol):
    """A stream, as its group sees it."""

    index: int
    events: int
    bytes: int


class Waiter(Protocol):
    """A stream that pulls: it is only told that there is something."""

    def wake(self) -> None: ...

    def push(self, wire: bytes) -> None: ...


class Subscription(NamedTuple):
    """What a stream asked for: channels, and the event types it keeps (None = all)."""

    channels: frozenset[str]
    types: frozenset[str] | None = None

    def label(self) -> str:
        """For log lines."""
        text = ",".join(sorted(self.channels))
        return text if self.types is None else f"{text}?event={','.join(sorted(self.types))}"


class Group:
    """Everything that the streams of one subscription have in common.

    live      streams that have been sent everything through :meth:`position`; unordered, a stream knows its index
    waiters   generator streams, which pull from the window and only need to be woken
    pending   frames that entered the worker and have not been sent yet
    events, bytes   sent to every live stream since the group began: a stream's own count is the difference between
              its leaving and its joining, so that counting costs nothing per stream and event
    traced    traces of what is pending (:mod:`sse.streams.deliveries`); nearly always empty
    passing   a fan-out pass over ``live`` is under way (it yields to the loop, so others see this)
    deferred  what waits for the end of that pass, or for the next one: joins, ends
    """

    __slots__ = (
        "bytes",
        "deferred",
        "dirty",
        "events",
        "last_sent",
        "live",
        "members",
        "passing",
        "pending",
        "subscription",
        "traced",
        "waiters",
    )

    def __init__(self, subscription: Subscription, now: float) -> None:
        self.subscription = subscription
        self.live: list[Any] = []
        self.waiters: set[Waiter] = set()
        self.pending: list[Frame] = []
        self.traced: list[Trace] = []
        self.deferred: list[Callable[[], None]] = []
        self.members = 0
        self.events = 0
        self.bytes = 0
        self.dirty = False
        self.passing = False
        self.last_sent = now

    def position(self, tail: int) -> int:
        """The position through which every live stream that is not in the current pass has been served; ``tail`` is
        how far the worker has read the log."""
        return self.pending[0].position - 1 if self.pending else tail

    def add_live(self, stream: Member) -> None:
        stream.index = len(self.live)
        self.live.append(stream)
        stream.events -= self.events
        stream.bytes -= self.bytes

    def remove_live(self, stream: Member) -> None:
        last = self.live.pop()
        if last is not stream:
            self.live[stream.index] = last
            last.index = stream.index
        stream.events += self.events
        stream.bytes += self.bytes
