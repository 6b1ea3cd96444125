"""One stream's life.

A stream is a cursor into the log, not a queue. It is in one of these states; everything that may happen to it
is a row of :data:`TRANSITIONS`, and :meth:`Stream.become` refuses what is not:

    opening    the response has begun; headers, opening block and any ``stream-reset`` are on their way
    replaying  it is sent, page by page, what it missed; it is not in its group's live list
    live       it has been sent everything through its group's position and shares the group's chunks
    lagging    its socket took less than it was given: it keeps the unsent rest of one chunk and its cursor,
               waits for writability, and catches up in pages. Others never wait for it.
    ending     it is sent what it is still owed, then a ``retry:`` and the terminating chunk
    lingering  all is sent and our side is shut down; the peer's close is awaited for a moment, because
               closing a socket with unread input sends a reset that can destroy what is still in flight
    closed     its descriptor is gone

A stream that is served by its own greenlet or thread (generator responses, where no takeover is offered)
goes through the same states without ``lagging`` and ``lingering``: a blocking write takes their place.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from .group import Group

OPENING: Final = "opening"
REPLAYING: Final = "replaying"
LIVE: Final = "live"
LAGGING: Final = "lagging"
ENDING: Final = "ending"
LINGERING: Final = "lingering"
CLOSED: Final = "closed"

STATES: Final = (OPENING, REPLAYING, LIVE, LAGGING, ENDING, LINGERING, CLOSED)

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    OPENING: frozenset({REPLAYING, ENDING, CLOSED}),
    REPLAYING: frozenset({LIVE, ENDING, CLOSED}),
    LIVE: frozenset({LAGGING, ENDING, CLOSED}),
    LAGGING: frozenset({LIVE, ENDING, CLOSED}),
    ENDING: frozenset({LINGERING, CLOSED}),
    LINGERING: frozenset({CLOSED}),
    CLOSED: frozenset(),
}

# Why a stream ended: the label of sse_streams_closed_total, and the access log's word.
CLOSE_REASONS: Final[dict[str, str]] = {
    "client": "the client closed its side, wholly or in part",
    "reset": "the connection was reset, or the network gave it up",
    "write-timeout": "bytes were waiting and none was taken for SSE_WRITE_TIMEOUT",
    "fell-behind": "its cursor was overtaken by the log's retention; it resumes with a stream-reset",
    "replaced": "the log was emptied or exchanged; it resumes with a stream-reset",
    "flooded": "the client sent more on the stream than an HTTP client has reason to",
    "drain": "the worker drains (SIGTERM)",
    "cut": "the drain's time was over before it had taken what it was owed; it resumes",
    "lease": "SSE_MAX_STREAM_AGE was reached",
    "token": "the token that it was opened with expired",
    "done": "the view's own iterable ended",
    "error": "the view's own iterable raised, or something of ours that the log names; it resumes",
}

# These end with a retry: and the terminating chunk, after all that the stream was owed.
CLEAN_ENDS: Final = frozenset({"drain", "lease", "token", "fell-behind", "replaced", "done", "error"})

# The `client` of the worker's own streams (canaries): outside every limit, lease and drain.
OWN_CLIENT: Final = "health"


class IllegalTransition(AssertionError):
    """A bug in the hub: a stream was asked to become what it cannot become from where it is."""


class Stream:
    """The small object that is left of a stream once its request has ended.

    group      what it subscribed to
    state      one of :data:`STATES`
    cursor     position through which it has been served; meaningful while it is not live
    fd         its socket's descriptor; -1 when it has none of its own
    index      its place in ``group.live``
    events, bytes   delivered to it; while it is live the group's counts are to be added (see :class:`Group`)
    opened     when, monotonic seconds
    ends_at    when it ends cleanly, monotonic seconds
    ends_as    the close reason then: lease or token
    beat       when it was last sent something by itself (opening, heartbeat), monotonic seconds
    chunked    HTTP/1.1 chunked coding, else close-delimited
    client     who, for the access log
    request_id of the request that it was, for the access log
    backlog    what it still has to be sent, while it has trouble or an end before it; else None
    """

    __slots__ = (
        "backlog",
        "beat",
        "bytes",
        "chunked",
        "client",
        "cursor",
        "ends_as",
        "ends_at",
        "events",
        "fd",
        "group",
        "index",
        "opened",
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
        ends_as: str = "lease",
    ) -> None:
        self.group = group
        self.cursor = cursor
        self.state = OPENING
        self.fd = -1
        self.index = -1
        self.events = 0
        self.bytes = 0
        self.opened = now
        self.ends_at = ends_at
        self.ends_as = ends_as
        self.beat = now
        self.chunked = chunked
        self.client = client
        self.request_id = request_id
        self.backlog: Backlog | None = None

    def become(self, state: str) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"a stream that is {self.state} cannot become {state}")
        self.state = state


class Backlog:
    """What a stream that is not live still has to be sent.

    rest         the unsent rest of one chunk: a view of bytes that are shared with others, so a stalled stream pins
                 at most one chunk (:data:`sse.fanout.passes.MAX_CHUNK_BYTES` plus one event)
    progress_at  when the kernel last took a byte, or the backlog began; monotonic seconds
    queued       bytes that the kernel still held for the peer when that was last looked at
    reading      a page is being read from the log for it
    end          the close reason, once it is to end; None otherwise
    owed         the position through which it is served before it ends; meaningful with ``end``
    final        the closing bytes were made and are in ``rest``
    """

    __slots__ = ("end", "final", "owed", "progress_at", "queued", "reading", "rest")

    def __init__(self, now: float, rest: memoryview | bytes = b"") -> None:
        self.rest = rest
        self.progress_at = now
        self.queued = 0
        self.reading = False
        self.end: str | None = None
        self.owed = 0
        self.final = False


class Lease(NamedTuple):
    """When a stream is to end, monotonic seconds, and as which of :data:`CLOSE_REASONS`."""

    ends_at: float
    reason: str = "lease"


def lease(now: float, max_age: float, expires_in: float | None) -> Lease:
    """The lease of a stream that opens now: it ends after 80-100 % of ``max_age`` seconds (0 = never), so that streams
    which opened together do not all come back together; and no later than its token."""
    ends_at = now + max_age * random.uniform(0.8, 1.0) if max_age else float("inf")
    if expires_in is None or now + expires_in > ends_at:
        return Lease(ends_at)
    return Lease(now + max(expires_in, 0.0), "token")


def spread_retry(base_ms: int) -> int:
    """A randomised ``retry:`` in milliseconds, 50-150 % of the setting, so that those who were sent away together do
    not come back together."""
    return int(base_ms * random.uniform(0.5, 1.5))
