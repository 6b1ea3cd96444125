"""Groups: streams with the same subscription share one pending list and one chunk per fan-out pass.

A stream of several channels must get its events in id order across all of them, else one ``Last-Event-ID`` could not
resume it. So events are joined into chunks per subscription, not per channel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, Protocol

from ..events.trace import Trace
from ..events.wire import Frame
from .compression import Compression, Epochs
from .forms import USUAL, Form, Forms
from .index import Index


class Member(Protocol):
    """A stream, as its group sees it."""

    index: int
    events: int
    bytes: int


class Waiter(Protocol):
    """A generator stream, as its group sees it."""

    def wake(self) -> None:
        """The window may have something for it."""

    def push(self, wire: bytes) -> None:
        """Send it this block, which is in no log."""


class Subscription(NamedTuple):
    """What a stream asked for.

    channels: names and patterns, of which at most one matches any channel (``patterns.reduced``).
    types: event types; None for all.
    envelope, plain: the form of its events (:mod:`sse.streams.forms`).
    gzip: its bytes are compressed (:mod:`sse.streams.compression`).
    """

    channels: frozenset[str]
    types: frozenset[str] | None = None
    envelope: bool = False
    plain: bool = False
    gzip: bool = False

    def label(self) -> str:
        """Return it as text for a log line."""
        text = ",".join(sorted(self.channels))
        return text if self.types is None else f"{text}?event={','.join(sorted(self.types))}"


class Group:
    """What the streams of one subscription have in common.

    form      in which they are written
    compression   of what they are sent; None for streams without gzip
    live      streams that have been sent everything through :meth:`position`; unordered, a stream knows its index
    waiters   generator streams, which pull from the window when they are woken (a dict, as an empty set takes 230 B)
    pending   frames that entered the worker and are not sent yet
    events, bytes   sent to every live stream since the group began. A stream's own count is their value at its leaving
              minus that at its joining, so that counting costs nothing per stream and event.
    traced    traces of pending frames (:mod:`sse.streams.deliveries`); nearly always empty
    members   streams of every state
    end       where its streams end, because all its channels are closed; 0 while they are not (`sse.streams.ends`)
    dirty     the group is queued for the fan-out
    passing   a fan-out pass over ``live`` is under way; it lets the event loop run, so others see this
    deferred  joins and ends that wait for the end of that pass, or for the next one
    last_sent when its live streams were last sent something, monotonic seconds
    """

    __slots__ = (
        "bytes",
        "compression",
        "deferred",
        "dirty",
        "end",
        "events",
        "form",
        "last_sent",
        "live",
        "members",
        "passing",
        "pending",
        "subscription",
        "traced",
        "waiters",
    )

    def __init__(
        self, subscription: Subscription, now: float, form: Form = USUAL, epochs: Epochs | None = None
    ) -> None:
        self.subscription = subscription
        self.form = form
        self.live: list[Any] = []
        self.compression = None if epochs is None else Compression(epochs, self.live)
        self.waiters: dict[Waiter, None] = {}
        self.pending: list[Frame] = []
        self.traced: list[Trace] = []
        self.deferred: list[Callable[[], None]] = []
        self.members = 0
        self.events = 0
        self.bytes = 0
        self.end = 0
        self.dirty = False
        self.passing = False
        self.last_sent = now

    def position(self, tail: int) -> int:
        """Return the position through which every live stream that is not in the current pass has been served.

        tail: the position through which the worker has read the log.
        """
        return self.pending[0].position - 1 if self.pending else tail

    def add_live(self, stream: Member) -> None:
        stream.index = len(self.live)
        self.live.append(stream)
        stream.events -= self.events
        stream.bytes -= self.bytes
        if self.compression is not None:
            self.compression.join(stream)

    def remove_live(self, stream: Member) -> None:
        last = self.live.pop()
        if last is not stream:
            self.live[stream.index] = last
            last.index = stream.index
        stream.events += self.events
        stream.bytes += self.bytes
        if self.compression is not None:
            self.compression.leave(stream)


class Groups:
    """One worker's groups, and which of them want a channel's events. The hub's lock guards it."""

    def __init__(self) -> None:
        self.forms = Forms()
        self.epochs = Epochs()
        self._by_subscription: dict[Subscription, Group] = {}
        self._index: Index[Group] = Index()

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_subscription.values())

    def __len__(self) -> int:
        return len(self._by_subscription)

    def of(self, channel: str) -> Collection[Group]:
        """Return the groups that cover this channel; their types may still exclude an event."""
        return self._index.of(channel)

    def among(self, channels: Collection[str]) -> dict[str, Collection[Group]]:
        """Return those of some channels that groups cover, with these groups."""
        return self._index.among(channels)

    def named(self, channel: str) -> Collection[Group]:
        """Return the groups that name this channel."""
        return self._index.named(channel)

    def join(self, subscription: Subscription) -> Group:
        """Return the group of this subscription, with one more member."""
        group = self._by_subscription.get(subscription)
        if group is None:
            form = self.forms.of(subscription.envelope, subscription.plain)
            epochs = self.epochs if subscription.gzip else None
            group = self._by_subscription[subscription] = Group(subscription, time.monotonic(), form, epochs)
            self._index.add(group, subscription.channels)
        group.members += 1
        return group

    def leave(self, group: Group) -> None:
        """Count one member less, and forget the group with its last one."""
        group.members -= 1
        if group.members:
            return
        del self._by_subscription[group.subscription]
        if group.compression is not None:
            group.compression.close()
        self._index.remove(group, group.subscription.channels)
