"""One stream: its states, the reasons why it ends, and its lease.

A stream is a cursor into the log, not a queue. :data:`TRANSITIONS` lists every change of state that is allowed;
:meth:`Stream.become` refuses all others.

    opening    the response has begun; headers, opening block and any ``stream-reset`` are being sent
    replaying  it is sent, page by page, what it missed; it is not in its group's live list yet
    live       it has been sent everything through its group's position and shares the group's chunks
    lagging    its socket took only part of a chunk. The stream keeps the unsent rest and its cursor, waits until the
               socket has room, and catches up in pages. Other streams never wait for it.
    ending     it is sent what it is still owed, then a ``retry:`` and the terminating chunk
    lingering  all is sent and our side is shut down. We wait a moment for the peer to close, because closing a
               socket with unread input sends a reset, which can destroy what is still in flight.
    closed     its descriptor is gone

A stream served by its own greenlet or thread (:mod:`sse.streams.pull`) has no ``lagging`` and no ``lingering``: its
writes block instead.
"""

from __future__ import annotations

import random
from enum import StrEnum
from sys import intern
from typing import Final, NamedTuple

from ..events.chunked import LAST_CHUNK, encode_chunk
from .compression import BODY, CHUNKED
from .group import Group


class State(StrEnum):
    """The label of ``sse_streams``; the module's text says what each means."""

    OPENING = "opening"
    REPLAYING = "replaying"
    LIVE = "live"
    LAGGING = "lagging"
    ENDING = "ending"
    LINGERING = "lingering"
    CLOSED = "closed"


TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.OPENING: frozenset({State.REPLAYING, State.ENDING, State.CLOSED}),
    State.REPLAYING: frozenset({State.LIVE, State.ENDING, State.CLOSED}),
    State.LIVE: frozenset({State.LAGGING, State.ENDING, State.CLOSED}),
    State.LAGGING: frozenset({State.LIVE, State.ENDING, State.CLOSED}),
    State.ENDING: frozenset({State.LINGERING, State.CLOSED}),
    State.LINGERING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class CloseReason(StrEnum):
    """Why a stream ended: the label of ``sse_streams_closed_total``, and ``reason`` in the access log."""

    # Cut off:
    CLIENT = "client"  # the client closed its side, or at least its sending half
    RESET = "reset"  # the connection was reset, or the network gave up on it
    WRITE_TIMEOUT = "write-timeout"  # bytes were waiting, and the client took none of them for SSE_WRITE_TIMEOUT
    FLOODED = "flooded"  # the client sent more on the stream than an HTTP client has reason to
    ERASED = "erased"  # bytes of erased events were waiting to be sent; it resumes
    CUT = "cut"  # the drain ended before the client had taken what it was owed; it resumes
    # Clean ends: a retry: and the terminating chunk, after everything that the stream was owed.
    FELL_BEHIND = "fell-behind"  # retention overtook its cursor; it resumes with a stream-reset
    REPLACED = "replaced"  # the log was emptied or exchanged; it resumes with a stream-reset
    DRAIN = "drain"  # the worker drains (SIGTERM)
    ENDED = "ended"  # all its channels are closed
    REVOKED = "revoked"  # its subject's access was taken back, or its channel's streams were ended
    LEASE = "lease"  # SSE_MAX_STREAM_AGE was reached
    TOKEN = "token"  # the token that opened it expired
    DONE = "done"  # the view's own iterable ended
    ERROR = "error"  # the view's own iterable raised, or our code failed and has logged it; it resumes


# The `client` of the worker's own streams, the canaries. No limit, lease or drain applies to them.
OWN_CLIENT: Final = "health"


class IllegalTransition(AssertionError):
    """A bug of ours: a stream was asked for a change of state that :data:`TRANSITIONS` does not have."""


class Stream:
    """The small object that remains of a stream once its request has ended.

    group      the streams with the same subscription, among them this one
    cursor     the position through which it has been served; not kept up to date while it is live
    fd         its socket's descriptor; -1 if it has none of its own
    index      its place in ``group.live``
    events, bytes   delivered to it; while it is live, add the group's counts (see :class:`Group`)
    opened     when it opened, monotonic seconds
    ends_at    when it ends cleanly, monotonic seconds
    ends_as    the close reason then: lease or token
    beat       when it was last sent something of its own (opening, heartbeat), monotonic seconds
    coding     how its bytes are coded (`sse.streams.compression`)
    client     the client's address, for limits and the access log
    owner      whose it is, by which it can be revoked (`sse.auth.revoked.subject_name`); "" if nobody is known
    request_id of the request that opened it, for the access log
    backlog    what must be sent before it is live or ends; None while it is live
    """

    __slots__ = (
        "backlog",
        "beat",
        "bytes",
        "client",
        "coding",
        "cursor",
        "ends_as",
        "ends_at",
        "events",
        "fd",
        "group",
        "index",
        "opened",
        "owner",
        "request_id",
        "state",
    )

    def __init__(
        self,
        group: Group,
        cursor: int,
        *,
        now: float,
        ends_at: float,
        client: str,
        chunked: bool = True,
        request_id: str = "",
        ends_as: CloseReason = CloseReason.LEASE,
        owner: str = "",
    ) -> None:
        self.group = group
        self.cursor = cursor
        self.state = State.OPENING
        self.fd = -1
        self.index = -1
        self.events = 0
        self.bytes = 0
        self.opened = now
        self.ends_at = ends_at
        self.ends_as = ends_as
        self.beat = now
        self.coding: int = CHUNKED if chunked else BODY
        self.client = client
        self.owner = intern(owner)  # somebody may have many streams
        self.request_id = request_id
        self.backlog: Backlog | None = None

    def become(self, state: State) -> None:
        """Change the state. Raises IllegalTransition."""
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"a stream that is {self.state} cannot become {state}")
        self.state = state

    @property
    def chunked(self) -> bool:
        """False: closing the connection ends the body (HTTP/1.0)."""
        return self.coding != BODY

    def opening(self, text: bytes) -> bytes:
        """Return the body's first bytes: this text as it is sent, without chunked coding."""
        return text

    def count(self, text: bytes) -> None:
        """Account for text that was sent to this stream alone, while it is not live."""

    def last(self, block: bytes) -> bytes:
        """Return the bytes that end the stream after this block."""
        return encode_chunk(block) + LAST_CHUNK if self.chunked else block


class Backlog:
    """What a stream that is not live must still be sent.

    rest         the unsent rest of one chunk: a view of bytes that streams share, so a stalled stream keeps at most
                 one chunk in memory (:data:`sse.fanout.passes.MAX_CHUNK_BYTES` plus one event)
    progress_at  when the kernel last took a byte, or the backlog began; monotonic seconds
    queued       bytes that the kernel still held for the peer at the last look
    reading      a page is being read from the log for it
    told         the position through which its client knows that events were trimmed (`sse.streams.replay.Begin`)
    end          the close reason if it is to end, else None
    owed         the position through which it is served before it ends; meaningful with ``end``
    final        ``rest`` has the closing bytes, or had them
    """

    __slots__ = ("end", "final", "owed", "progress_at", "queued", "reading", "rest", "told")

    def __init__(self, now: float, rest: memoryview | bytes = b"", told: int = 0) -> None:
        self.rest = rest
        self.progress_at = now
        self.queued = 0
        self.reading = False
        self.told = told
        self.end: CloseReason | None = None
        self.owed = 0
        self.final = False


class Lease(NamedTuple):
    """When a stream ends, monotonic seconds, and with which reason."""

    ends_at: float
    reason: CloseReason = CloseReason.LEASE


def lease(now: float, max_age: float, expires_in: float | None) -> Lease:
    """Return the lease of a stream that opens ``now``, monotonic seconds.

    It ends after 80-100 % of ``max_age`` seconds (0 = never), so that streams which opened together do not all return
    together; and no later than its token, which expires in ``expires_in`` seconds (None = never).
    """
    ends_at = now + max_age * random.uniform(0.8, 1.0) if max_age else float("inf")
    if expires_in is None or now + expires_in > ends_at:
        return Lease(ends_at)
    return Lease(now + max(expires_in, 0.0), CloseReason.TOKEN)


def spread_retry(base_ms: int) -> int:
    """Return a ``retry:`` of 50-150 % of ``base_ms``, so that clients sent away together do not return together."""
    return int(base_ms * random.uniform(0.5, 1.5))
