"""The log in Redis: one stream for many workers and pods (Redis 6.2 or newer, Valkey).

**Storing** is one script, so one round trip, whatever the number of events. **Following** is a blocking XREAD on a
connection of its own, which any append wakes. Everything else shares a few connections. ``scripts`` describes
the keys, ``url`` the forms of the URL.

**The index.** A channel is replayed from its own index, without reading other channels' events: a sorted set of
8-byte positions. It costs 110 bytes an event (22 while a channel has no more than 128) and 3 µs of Redis's time an
append. A stream for each channel would cost 11 bytes an event, but 4.3 KB a channel however small, and could not
count: ``floor`` is O(log n) here. Index and stream are trimmed by one script, so their size is bounded by the same
retention.

**Replaced logs.** A Redis that was flushed, restored from an old dump or exchanged must not look like a quiet one.
The first worker to use an empty Redis writes a creation marker, newer than any id that it knows. With each XREAD, in
the same write, a follower asks for marker, newest id and end of trimming (2 µs of Redis's time a batch, no round
trip), and compares them before it hands the batch over. It raises ``LogReplaced`` if they do not fit, or if events
were trimmed before it read them.

**Lost ends.** A replica that takes over may lack the newest events, acknowledged ones too (``client``,
``follow``). The first worker that misses one marks the log, and clients with a cursor below the mark are told. A loss
goes unnoticed only if every worker that had stored or read the event ended before it reached the new master.
Only waiting for replicas (``?replicas=1``, the default with Sentinel) keeps events from being lost at all.

**Durable** means: in Redis's append-only file (``appendonly yes``). With ``appendfsync everysec``, its default, the
death of the machine can lose a second of events, and so can ``kill -9`` of Redis on a slow disk: during a sync, Redis
answers before it has written. ``always`` prevents both. Without that file Redis starts with its last dump. Clients are
told of losses as above.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import redis

from ...events.model import Event, Record, format_id
from ...events.trace import Trace
from ...runtime.cooperation import offload
from ..base import (
    ANY,
    CHANNELS_MOST,
    FOLLOW_CHARS,
    IDEMPOTENCY_SECONDS,
    OFFLOAD_EVENTS,
    TRIM_BITE,
    Batch,
    Bounds,
    ChannelInfo,
    Erased,
    Expected,
    IdempotencyConflict,
    LogRefused,
    LogUnavailable,
    RetainRule,
    Usage,
)
from .check import Watch, read_info
from .client import Client
from .codec import batches, decode, position_of, to_member
from .errors import REFUSALS, RETRY_AFTER, explain, wrote_nothing
from .follow import Tail
from .link import COMMAND_TIMEOUT, Argument, Link
from .read import floor, floor_of_all, read_index, scan
from .scripts import APPEND, BOUNDS, TRIM
from .url import RedisUrl, parse_url

logger = logging.getLogger("headwater.log.redis")

# Redis drops an append that it starts later than this many seconds after it was sent: its publisher is about to be
# told, or was told, that no answer came in time, and may have repeated it. Shorter than COMMAND_TIMEOUT by the time
# that an answer may take to arrive.
STALE_AFTER: Final = COMMAND_TIMEOUT * 0.75
REPLICA_TIMEOUT_MS: Final = 1000  # how long an append waits for ?replicas=
MISSING_TIMEOUT_MS: Final = 100  # and how long while they are known to be missing: a connection is held meanwhile
CLAIM_MS: Final = 3000  # another worker takes over trimming after this long without a bite
TRIM_BYTES: Final = 1024 * 1024  # of data at once: Redis serves nobody else meanwhile, about 2 ms


class RedisLog:
    """The log in Redis. For how long a failure takes to show, see ``link``, ``client`` and ``breaker``."""

    shared = True
    notices_gaps = True

    def __init__(self, target: RedisUrl, *, prefix: str, retain_events: int, retain_seconds: float) -> None:
        self._client = Client(target, prefix)
        self.retain(retain_events, retain_seconds)
        self._watch = Watch(target.where)
        self._token = f"{os.getpid()}:{secrets.token_hex(8)}"  # claims trimming
        self._unconfirmed = False  # were replicas missing at the last append?
        self._followers: dict[Link, threading.Event] = {}
        self._offset_ms: float | None = None  # Redis's clock less our monotonic one

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "headwater", retain_events: int, retain_seconds: float
    ) -> RedisLog:
        """Open the log at a URL of one of the forms in ``sse.log.redis.url``.

        prefix: the first part of every key.
        retain_events, retain_seconds: what ``trim`` keeps.

        Raises ``ValueError`` for a URL or prefix that cannot be used, ``LogRefused`` for a Redis that cannot hold the
        log (version, rights, password, eviction, foreign keys). A Redis that does not answer raises nothing, because
        pods must be able to start during an outage: it is checked once it is back, and until then every method raises
        ``LogUnavailable``.
        """
        log = cls(parse_url(url), prefix=prefix, retain_events=retain_events, retain_seconds=retain_seconds)
        try:
            log.bounds()
        except LogUnavailable as error:
            if isinstance(error.__cause__, (LogRefused, *REFUSALS)):
                log.close()
                raise LogRefused(str(error)) from None
            logger.warning("Redis %s: %s; it is tried again at each use", log._client.target.where, error)
        return log

    # ── storing ───────────────────────────────────────────────────────────────────────────────────────────

    def append(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        digest: bytes = b"",
        trace: str | None = None,
        close: Collection[str] = (),
    ) -> list[int]:
        """See ``Log.append``.

        Once the request was sent, the events *may* have been stored: no answer arrives, replicas do not confirm, or
        the master has changed. (Redis drops an append that it starts too late: ``STALE_AFTER``.) Nothing is repeated
        here. A publisher that sent an idempotency key may repeat the request, and gets the first positions.
        """
        if close:
            raise LogUnavailable("not yet", stored="no")
        if not events:
            return []
        if len(events) > OFFLOAD_EVENTS:
            return offload(self._append, events, key, digest, trace)
        return self._append(events, key, digest, trace)

    def _append(self, events: Sequence[Event], key: str | None, digest: bytes, trace: str | None) -> list[int]:
        client = self._client
        numbers: dict[str, int] = {}  # of the channels, in the order in which the script is given them
        body: list[Argument] = []
        for event in events:
            number = numbers.setdefault(event.channel, len(numbers) + 1)
            retry = "" if event.retry is None else event.retry
            body += (number, event.data, event.event or "", retry)
        if trace is not None:
            body.append(trace)
        keys = [client.keys.meta, client.keys.events]
        lifetime: Argument = ""
        if key is not None:
            keys.append(client.keys.remembered(key))
            lifetime = int(IDEMPOTENCY_SECONDS * 1000)
        keys += map(client.keys.channel, numbers)
        head = lifetime, digest.hex(), len(numbers), *numbers

        asked = False

        def store(link: Link) -> Any:
            nonlocal asked
            asked = True
            args = [format_id(client.seen), self._deadline(), *head, *body]
            if not client.target.replicas:
                return link.run(APPEND, keys, args)
            patience = MISSING_TIMEOUT_MS if self._unconfirmed else REPLICA_TIMEOUT_MS
            wait = "WAIT", client.target.replicas, patience
            return self._confirmed(*link.run_with(APPEND, keys, args, wait))

        try:
            answer = client.call(store)
            if answer[0] == b"late":
                # Redis's clock was set, or our idea of it was wrong. Nothing was stored, and now we know better.
                self._learn_clock(answer[1])
                asked = False
                answer = client.call(store)
        except LogUnavailable as error:
            if not asked or wrote_nothing(error.__cause__):
                error.stored = "no"
            raise
        self._learn_clock(answer[1])
        if answer[0] == b"late":
            message = "Redis came to the request too late; nothing was stored"
            raise LogUnavailable(message, RETRY_AFTER, stored="no")
        if answer[0] == b"conflict":
            raise IdempotencyConflict("this idempotency key came with another content before")
        first = position_of(answer[2])
        positions = list(range(first, first + int(answer[3])))
        client.holds(positions[-1])
        return positions

    def _deadline(self) -> int:
        """By Redis's clock, in unix ms; 0 as long as we do not know that."""
        if self._offset_ms is None:
            return 0
        return int((time.monotonic() + STALE_AFTER) * 1000 + self._offset_ms)

    def _learn_clock(self, redis_ms: int) -> None:
        # Low by the time that the answer took: so deadlines come too soon rather than too late.
        self._offset_ms = redis_ms - time.monotonic() * 1000

    def _confirmed(self, answer: Any, replicas: int) -> Any:
        wanted = self._client.target.replicas
        if answer[0] not in (b"stored", b"known"):
            return answer
        self._unconfirmed = replicas < wanted
        if self._unconfirmed:
            message = f"stored, but only {replicas} of {wanted} replicas have it: a failover may lose it"
            raise LogUnavailable(message, RETRY_AFTER)
        return answer

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        """See ``Log.read``. Two round trips for each 500 records of some channels, one for 5,000 of all."""
        if channels is None:
            return scan(self._client, format_id(after), limit, max_bytes, reverse=False)
        return read_index(self._client, frozenset(channels), after, limit, max_bytes, reverse=False)

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        """See ``Log.newest``. Costs what ``read`` does."""
        if channels is None:
            return scan(self._client, "", limit, max_bytes, reverse=True)[::-1]
        return read_index(self._client, frozenset(channels), 0, limit, max_bytes, reverse=True)[::-1]

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        """See ``Log.floor``."""
        if channels is None:
            return floor_of_all(self._client, after, keep)
        return floor(self._client, frozenset(channels), after, keep, self.bounds().latest)

    def bounds(self) -> Bounds:
        """See ``Log.bounds``. Creates the log if there is none."""
        created, latest, trimmed, oldest, redis_ms, lost = self._client.run(BOUNDS, [])
        self._learn_clock(redis_ms)
        if self._client.history is None:
            self._client.history = created, lost
        first, mark = (position_of(id) if id else None for id in (oldest, lost))
        bounds = Bounds(first, position_of(latest), position_of(trimmed), mark or 0, position_of(created))
        self._client.knows(bounds.latest)  # streams open at this position
        return bounds

    def usage(self) -> Usage:
        """See ``Log.usage``. The bytes are those of the whole Redis, and there is room up to its maxmemory."""

        info = self._client.call(lambda link: read_info(link, "memory"))
        used, most = (int(info.get(name, 0)) for name in ("used_memory", "maxmemory"))
        return Usage(used, max(most - used, 0) if most else None, self.bounds().oldest)

    # ── following ─────────────────────────────────────────────────────────────────────────────────────────

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        """See ``Log.follow``. Also raises ``LogReplaced``; the next call then accepts the log as it is."""
        client, tail = self._client, None
        try:
            tail = Tail(client, after)
            self._followers[tail.link] = stop
            tail.resume()
            while not (stop.is_set() or client.closed):
                entries = tail.poll()
                if not entries:
                    yield []
                traces: list[Trace] = []
                for batch in batches(decode(entries, traces), FOLLOW_CHARS):
                    if traces:
                        # With the first that this answer is cut into; those who get it can wait for the rest.
                        batch, traces = Batch(batch, traces), []
                    client.followed = batch[-1].position
                    client.holds(client.followed)
                    yield batch
        except redis.RedisError as error:
            if stop.is_set() or client.closed:
                return
            if isinstance(error, redis.TimeoutError):
                client.breaker.failed(explain(error))
            raise client.unavailable(error) from error
        finally:
            if tail is not None:
                self._followers.pop(tail.link, None)
                tail.link.close()

    def wake(self) -> None:
        """Interrupt the followers that were told to stop; the others are woken by XREAD."""
        for link, stop in list(self._followers.items()):
            if stop.is_set():
                link.interrupt()

    # ── upkeep ────────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> int:
        """See ``Log.trim``. One worker among all pods does the work at a time; its claim lasts ``CLAIM_MS``."""
        total = 0
        while total < TRIM_BITE:
            removed = self._nibble(TRIM_BITE - total)
            if not removed:
                break
            total += removed
        return total

    def _nibble(self, most: int) -> int:
        """Trim as much of a bite as Redis does at once: fewer entries, if they are large."""
        client = self._client
        if self._watch.due():
            client.call(self._watch.look)
        limits = self._retain_events, self._retain_ms, most, TRIM_BYTES
        args: list[Argument] = [self._token, CLAIM_MS, *limits, client.keys.index]
        removed, foreign, trimmed = client.run(TRIM, args, client.keys.claim)
        if foreign:
            logger.warning("somebody else has trimmed the stream in Redis, through %s", trimmed.decode())
            self._sweep(b"[" + to_member(position_of(trimmed)))
        return int(removed)

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        """See ``Log.retain``."""
        self._retain_events = events
        self._retain_ms = int(seconds * 1000)

    def _sweep(self, through: bytes) -> None:
        """Remove what the indexes still hold up to there. Walks all keys of Redis, so only after a foreign trim."""
        client, cursor = self._client, b"0"
        while True:
            cursor, found = client.one("SCAN", cursor, "MATCH", f"{client.keys.index}*", "COUNT", 1000)
            if found:
                client.pipeline(*(("ZREMRANGEBYLEX", index, "-", through) for index in found))
            if cursor == b"0":
                return

    def close(self) -> None:
        """See ``Log.close``."""
        self._client.close()
        for link in list(self._followers):
            link.interrupt()

    # ── not yet ─────────────────────────────────────────────────────────────────────────────────────────────

    def erase(self, channel: str) -> Erased:
        raise LogUnavailable("not yet", stored="no")

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        raise LogUnavailable("not yet", stored="no")

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        raise LogUnavailable("not yet", stored="no")

    def channels(self, prefix: str = "", after: str = "", limit: int = CHANNELS_MOST) -> list[ChannelInfo]:
        raise LogUnavailable("not yet", stored="no")

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        raise LogUnavailable("not yet", stored="no")

    def notes(self, kind: str) -> dict[str, str]:
        raise LogUnavailable("not yet", stored="no")

    def drop_note(self, kind: str, name: str) -> None:
        raise LogUnavailable("not yet", stored="no")
