"""The log in Redis: one stream for many workers and pods (Redis 6.2 or newer, Valkey).

**Storing** is one script, so one round trip, whatever the number of events. **Following** is a blocking XREAD on a
connection of its own; it wakes by itself, whoever appends. Everything else shares a few connections. What lies
where in Redis is told in `_redis_scripts`, the URL's forms in `_redis_url`.

**The index.** A channel is replayed from its own index, without reading other channels' events: a sorted set of
8-byte positions. It costs 110 bytes an event (22 while a channel has no more than 128) and 3 µs of Redis's time an
append. A stream for each channel would cost 11 bytes an event, but 4.3 KB a channel however small, and could not
count: `floor` is O(log n) here. Index and stream are trimmed by one script, so their size is bounded by the same
retention.

**Replaced logs.** A Redis that was flushed, restored from an old dump or exchanged must not pass for a quiet one.
The first user of an empty Redis writes a creation marker, newer than any id that it knows. With each XREAD, in the
same write, a follower asks for marker and newest id (2 µs of Redis's time a batch, no round trip), so it compares
them before it hands a batch over; after a reconnect it also makes sure that the event it stopped at is still there.
What does not fit raises `LogReplaced`.

**Durable** means: in Redis's append-only file (``appendonly yes``), which outlives ``kill -9`` of Redis; with
``appendfsync everysec``, its default, the death of the machine can cost a second. Without that file Redis starts
with its last dump, and clients are told so. A replica that takes over may lack the newest events, unless the URL
says ``?replicas=1``.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, TypeVar

import redis

from sse.event import Event, Record, format_id
from sse.log._redis_breaker import Breaker
from sse.log._redis_check import check
from sse.log._redis_codec import Entry, Keys, batches, decode, from_members, position_of, to_member
from sse.log._redis_link import (
    COMMAND_TIMEOUT,
    CONNECT_TIMEOUT,
    RETRY_AFTER,
    Argument,
    Connector,
    Link,
    Pool,
    explain,
    is_read_only,
)
from sse.log._redis_scripts import APPEND, BOUNDS, FETCH, TRIM, Script
from sse.log._redis_url import RedisUrl, parse_url
from sse.log.base import (
    FOLLOW_CHARS,
    FOLLOW_RECORDS,
    IDEMPOTENCY_SECONDS,
    TRIM_BITE,
    Bounds,
    IdempotencyConflict,
    LogRefused,
    LogUnavailable,
)

logger = logging.getLogger("headwater.log.redis")

T = TypeVar("T")

# While Redis is known to be down, the one request that probes waits this long to connect, and for its answer: so it,
# too, is over in less than 250 ms.
PROBE_TIMEOUT: Final = 0.1
# An append that Redis only comes to after this many seconds is dropped there: its publisher is about to be told, or
# was told, that nothing was stored. Less than COMMAND_TIMEOUT by the time that an answer may take to arrive.
STALE_AFTER: Final = COMMAND_TIMEOUT * 0.75
BLOCK_MS: Final = 900  # a quiet follower hears from Redis this often: below QUIET_SECONDS
FOLLOW_MARGIN: Final = 1.1  # seconds beyond that, after which a follower's Redis is taken for dead
CLAIM_MS: Final = 3000  # a worker that trims is relieved after this long without a bite
TRIM_BYTES: Final = 1024 * 1024  # of data in one bite: Redis serves nobody else meanwhile, about 1 ms
PAGE: Final = 500  # entries a command returns at most, for the same reason
REPLICA_TIMEOUT_MS: Final = 1000  # how long an append waits for ?replicas=


class LogReplaced(LogUnavailable):
    """The log under a follower is another one, or an older copy: what it was about to read may be lost.

    Clients are to be told (`stream-reset`), and following goes on from the new log's `bounds`.
    """


class RedisLog:
    """See the module's text. Times of the promises: `CONNECT_TIMEOUT`, `COMMAND_TIMEOUT`, `Breaker`."""

    shared = True

    def __init__(self, target: RedisUrl, *, prefix: str, retain_events: int, retain_seconds: float) -> None:
        self._target = target
        self._keys = Keys(prefix)
        self._retain_events = retain_events
        self._retain_ms = int(retain_seconds * 1000)
        self._connector = Connector(target)
        self._pool = Pool(self._connector)
        self._breaker = Breaker()
        self._token = f"{os.getpid()}:{secrets.token_hex(8)}"  # claims trimming
        self._checked = False
        self._closed = False
        self._followers: dict[Link, threading.Event] = {}
        self._created: bytes | None = None  # creation marker of the log that this object works on
        self._followed = 0  # newest position that a follower handed over
        self._seen = 0  # newest position that this worker, and so perhaps a client, knows
        self._offset_ms: float | None = None  # Redis's clock less our monotonic one

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "headwater", retain_events: int, retain_seconds: float
    ) -> RedisLog:
        """Open the log at `url` (forms: `_redis_url`).

        prefix: of all keys. retain_events, retain_seconds: what `trim` keeps. Raises `ValueError` for a URL or
        prefix that cannot be, `LogRefused` for a Redis that cannot hold the log (version, rights, password,
        eviction, foreign keys). A Redis that does not answer raises nothing: pods must be able to start during an
        outage, and it is checked when it is back; until then every method raises `LogUnavailable`.
        """
        log = cls(parse_url(url), prefix=prefix, retain_events=retain_events, retain_seconds=retain_seconds)
        try:
            log.bounds()
        except LogUnavailable as error:
            if isinstance(error.__cause__, LogRefused):
                log.close()
                raise error.__cause__ from None
            logger.warning("Redis %s: %s; it is tried again at each use", log._target.where, error)
        return log

    # ── storing ───────────────────────────────────────────────────────────────────────────────────────────

    def append(self, events: Sequence[Event], *, key: str | None = None, digest: bytes = b"") -> list[int]:
        """See `Log.append`.

        `LogUnavailable` because of an answer that did not come (a time-out, a lost connection) is the one case in
        which the events *may* have been stored: Redis dropped them if it came to them too late (`STALE_AFTER`), but
        it may have stored them just before the connection broke. Nothing is repeated here. A publisher that sends
        an idempotency key may repeat the request, and gets the positions of the first time.
        """
        if not events:
            return []
        numbers = {channel: i for i, channel in enumerate(dict.fromkeys(event.channel for event in events), 1)}
        keys = [self._keys.meta, self._keys.events]
        lifetime: Argument = ""
        if key is not None:
            keys.append(self._keys.remembered(key))
            lifetime = int(IDEMPOTENCY_SECONDS * 1000)
        keys += map(self._keys.channel, numbers)
        body: list[Argument] = [lifetime, digest.hex(), len(numbers), *numbers]
        for event in events:
            body += numbers[event.channel], event.data, event.event or "", event.retry
            if event.retry is None:
                body[-1] = ""

        def store(link: Link) -> Any:
            head = format_id(self._seen), self._deadline()
            if not self._target.replicas:
                return link.run(APPEND, keys, [*head, *body])
            wait = "WAIT", self._target.replicas, REPLICA_TIMEOUT_MS
            return self._confirmed(*link.run_with(APPEND, keys, [*head, *body], wait))

        answer = self._call(store)
        if answer[0] == b"late":
            # Its clock was set, or our idea of it was wrong. Nothing was stored; now we know better.
            self._learn_clock(answer[1])
            answer = self._call(store)
        self._learn_clock(answer[1])
        if answer[0] == b"late":
            raise LogUnavailable("Redis came to the request too late; nothing was stored", RETRY_AFTER)
        if answer[0] == b"conflict":
            raise IdempotencyConflict("this idempotency key came with another content before")
        first = position_of(answer[2])
        positions = list(range(first, first + int(answer[3])))
        self._seen = max(self._seen, positions[-1])
        return positions

    def _deadline(self) -> int:
        if self._offset_ms is None:
            return 0
        return int((time.monotonic() + STALE_AFTER) * 1000 + self._offset_ms)

    def _learn_clock(self, redis_ms: int) -> None:
        # Too low by the time that the answer took: so a deadline comes too soon rather than too late.
        self._offset_ms = redis_ms - time.monotonic() * 1000

    def _confirmed(self, answer: Any, replicas: int) -> Any:
        if answer[0] in (b"stored", b"known") and replicas < self._target.replicas:
            raise LogUnavailable(
                f"stored in Redis, but only {replicas} of {self._target.replicas} replicas have it: it may be "
                "lost in a failover",
                RETRY_AFTER,
            )
        return answer

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        """See `Log.read`. Two round trips for each 500 records of some channels, one for those of all."""
        if channels is None:
            return self._scan(format_id(after), limit, max_bytes, reverse=False)
        return self._read_index(channels, after, limit, max_bytes, reverse=False)

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        """See `Log.newest`. Costs as `read` does."""
        if channels is None:
            return self._scan("", limit, max_bytes, reverse=True)[::-1]
        return self._read_index(channels, 0, limit, max_bytes, reverse=True)[::-1]

    def _scan(self, beyond: str, limit: int, max_bytes: int, *, reverse: bool) -> list[Record]:
        """Every channel's records beyond an id ("": from the end), oldest first or, reversed, newest first."""
        records: list[Record] = []
        size, count = 0, 100
        while len(records) < limit and size < max_bytes:
            count = min(count, limit - len(records))
            start = f"({beyond}" if beyond else "+" if reverse else "-"
            command = "XREVRANGE" if reverse else "XRANGE", self._keys.events, start, "-" if reverse else "+"
            entries = self._one(*command, "COUNT", count)
            for record in decode(entries):
                records.append(record)
                size += len(record.data)
                if size >= max_bytes:
                    break
            if len(entries) < count:
                break
            beyond = entries[-1][0].decode()
            count = _fitting(entries, max_bytes - size, PAGE * 10)
        return records

    def _read_index(
        self, channels: Collection[str], after: int, limit: int, max_bytes: int, *, reverse: bool
    ) -> list[Record]:
        indexes = [self._keys.channel(name) for name in set(channels)]
        command = "ZREVRANGEBYLEX" if reverse else "ZRANGEBYLEX"
        here, end = (b"+", b"-") if reverse else (b"(" + to_member(after), b"+")
        records: list[Record] = []
        size = 0
        while indexes and len(records) < limit and size < max_bytes:
            want = min(limit - len(records), PAGE)
            commands = [(command, index, here, end, "LIMIT", 0, want) for index in indexes]
            found = self._call(lambda link, commands=commands: link.call(commands))  # type: ignore[misc]
            ids = sorted((p for part in found for p in from_members(part)), reverse=reverse)[:want]
            if not ids:
                break
            looked, entries = self._run(FETCH, [max_bytes - size, *map(format_id, ids)])
            here = b"(" + to_member(ids[looked - 1])
            for record in decode(entries):
                records.append(record)
                size += len(record.data)
        return records

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        """See `Log.floor`. One round trip and O(log n) for one channel, a dozen for several."""
        if channels is None:
            return self._floor_of_all(after, keep)
        indexes = [self._keys.channel(name) for name in set(channels)]
        low, high = after, (1 << 64) - 1  # low: more than `keep` events follow it; high: at most `keep` do
        follow_low = self._count(indexes, low, high)
        if follow_low <= keep:
            return None
        if len(indexes) == 1:
            rank = self._one("ZREVRANGE", indexes[0], keep, keep)
            return from_members(rank)[0] if rank else None
        high, follow_high = max(self.bounds().latest, low + 1), 0
        while follow_low - follow_high > PAGE and high - low > 1:
            middle = (low + high) // 2
            follow_middle = self._count(indexes, middle, high) + follow_high
            if follow_middle > keep:
                low, follow_low = middle, follow_middle
            else:
                high, follow_high = middle, follow_middle
        commands = [("ZRANGEBYLEX", index, b"(" + to_member(low), b"[" + to_member(high)) for index in indexes]
        parts = self._call(lambda link: link.call(commands))
        between = sorted(p for part in parts for p in from_members(part))
        # Of those in between, the newest ones are kept that `keep` has room for. (Some may have come or gone since.)
        left = len(between) - (keep - follow_high)
        return between[left - 1] if 0 < left <= len(between) else low

    def _count(self, indexes: list[str], after: int, through: int) -> int:
        span = b"(" + to_member(after), b"[" + to_member(through)
        counts = self._call(lambda link: link.call([("ZLEXCOUNT", index, *span) for index in indexes]))
        return int(sum(counts))

    def _floor_of_all(self, after: int, keep: int) -> int | None:
        # A stream cannot count: its newest `keep` are walked, in pages. Nobody subscribes to all channels.
        kept, beyond, count = 0, "+", 100
        while True:
            page = self._one("XREVRANGE", self._keys.events, beyond, f"({format_id(after)}", "COUNT", count)
            if kept + len(page) > keep:
                return position_of(page[keep - kept][0])
            if len(page) < count:
                return None
            kept += len(page)
            beyond = "(" + page[-1][0].decode()
            count = _fitting(page, TRIM_BYTES, PAGE)

    def bounds(self) -> Bounds:
        """See `Log.bounds`. Creates the log if there is none."""
        created, latest, trimmed, oldest, now_ms = self._run(BOUNDS, [])
        self._learn_clock(now_ms)
        if self._created is None:
            self._created = created
        self._seen = max(self._seen, position_of(latest))
        return Bounds(position_of(oldest) if oldest else None, position_of(latest), position_of(trimmed))

    # ── following ─────────────────────────────────────────────────────────────────────────────────────────

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        """See `Log.follow`. Also raises `LogReplaced`; the next call of it then takes the log as it is."""
        link = None
        try:
            link = self._follower()
            self._followers[link] = stop
            last = self._resume(link, after)
            beyond, count, block_ms = format_id(after), 100, 1
            while not (stop.is_set() or self._closed):
                entries, last = self._poll(link, beyond, count, block_ms, last)
                block_ms = BLOCK_MS
                if not entries:
                    yield []
                    continue
                for batch in batches(decode(entries), FOLLOW_CHARS):
                    self._followed = batch[-1].position
                    self._seen = max(self._seen, self._followed)
                    yield batch
                beyond = entries[-1][0].decode()
                count = _fitting(entries, FOLLOW_CHARS, FOLLOW_RECORDS)
        except redis.RedisError as error:
            if stop.is_set() or self._closed:
                return
            if link is None or isinstance(error, redis.TimeoutError):
                self._breaker.failed(explain(error))
            raise self._unavailable(error) from error
        finally:
            if link is not None:
                self._followers.pop(link, None)
                link.close()

    def _follower(self) -> Link:
        if self._closed:
            raise LogUnavailable("the log is closed")
        link = self._connector.connect(timeout=BLOCK_MS / 1000 + FOLLOW_MARGIN)
        try:
            self._check(link)
        except LogRefused as error:
            link.close()
            raise LogUnavailable(str(error), RETRY_AFTER) from error
        except BaseException:
            link.close()
            raise
        self._breaker.succeeded()
        return link

    def _resume(self, link: Link, after: int) -> bytes:
        """Is this still the log that was followed through `after`? Returns the newest id that it gave out."""
        created, latest, trimmed, _, _ = self._run_on(link, BOUNDS, [])
        known, self._created = self._created, created
        if known not in (None, created):
            raise LogReplaced(f"the log in Redis is another one, of {created.decode()}")
        if after > position_of(latest):
            raise LogReplaced(f"the log in Redis ends at {latest.decode()}, before {format_id(after)}")
        if after == self._followed and after > position_of(trimmed):
            here = format_id(after)
            if not link.call([("XRANGE", self._keys.events, here, here)])[0]:
                raise LogReplaced(f"the log in Redis has lost {here}: it is an older copy")
        return b"0-0"

    def _poll(
        self, link: Link, beyond: str, count: int, block_ms: int, before: bytes
    ) -> tuple[list[Entry], bytes]:
        """Wait for entries beyond an id; returns them, and the newest id given out, which must not go back."""
        answer, (created, last) = link.call(
            [
                ("XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", self._keys.events, beyond),
                ("HMGET", self._keys.meta, "created", "last"),
            ]
        )
        if created != self._created:
            self._created = self._run_on(link, BOUNDS, [])[0]
            raise LogReplaced("the log in Redis was removed or exchanged")
        if last != before and position_of(last) < position_of(before):
            raise LogReplaced(f"the log in Redis went back from {before.decode()} to {last.decode()}")
        return (answer[0][1] if answer else []), last

    def wake(self) -> None:
        """Followers need no waking, XREAD does that; but those that were told to stop are made to look."""
        for link, stop in list(self._followers.items()):
            if stop.is_set():
                link.interrupt()

    # ── upkeep ────────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> int:
        """See `Log.trim`. The work of one worker of all pods at a time, who holds the claim for `CLAIM_MS`."""
        head = [self._token, CLAIM_MS, self._retain_events, self._retain_ms, TRIM_BITE, TRIM_BYTES]
        removed, foreign, trimmed = self._run(TRIM, [*head, self._keys.index], self._keys.claim)
        if foreign:
            logger.warning("somebody else has trimmed the stream in Redis, through %s", trimmed.decode())
            self._sweep(to_member(position_of(trimmed)))
        return int(removed)

    def _sweep(self, through: bytes) -> None:
        """Remove what every index still has up to there. Walks all keys of Redis, so only in that rare case."""
        cursor = b"0"
        while True:
            cursor, found = self._one("SCAN", cursor, "MATCH", f"{self._keys.index}*", "COUNT", 1000)
            if found:
                commands = [("ZREMRANGEBYLEX", index, "-", b"[" + through) for index in found]
                self._call(lambda link, commands=commands: link.call(commands))  # type: ignore[misc]
            if cursor == b"0":
                return

    def close(self) -> None:
        """See `Log.close`."""
        self._closed = True
        for link in list(self._followers):
            link.interrupt()
        self._pool.clear()

    # ── calling ───────────────────────────────────────────────────────────────────────────────────────────

    def _one(self, *command: Argument) -> Any:
        return self._call(lambda link: link.call([command]))[0]

    def _run(self, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        return self._call(lambda link: self._run_on(link, script, args, *keys))

    def _run_on(self, link: Link, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        return link.run(script, [self._keys.meta, self._keys.events, *keys], [format_id(self._seen), *args])

    def _check(self, link: Link) -> None:
        if not self._checked:
            check(link, self._keys, self._target.where)
            self._checked = True

    def _call(self, work: Callable[[Link], T]) -> T:
        """Do work on a pooled connection, through the breaker. Raises `LogUnavailable` for whatever goes wrong."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        probe, connected = self._breaker.admit(), False
        try:
            with self._pool.lease(patience=PROBE_TIMEOUT if probe else CONNECT_TIMEOUT) as link:
                connected = True
                if probe:
                    link.call([("PING",)], timeout=PROBE_TIMEOUT)
                    self._breaker.succeeded(probe=True)
                    probe = False
                elif not self._breaker.closed:  # found to be down while we waited for a connection
                    raise LogUnavailable("Redis is down", RETRY_AFTER)
                self._check(link)
                return work(link)
        except LogRefused as error:
            raise LogUnavailable(str(error), RETRY_AFTER) from error
        except redis.RedisError as error:
            silent = not connected or isinstance(error, redis.TimeoutError)
            if probe or (silent and not isinstance(error, redis.ResponseError)):
                self._breaker.failed(explain(error), probe=probe)
                probe = False
            raise self._unavailable(error) from error
        finally:
            if probe:
                self._breaker.forgo()

    def _unavailable(self, error: redis.RedisError) -> LogUnavailable:
        if is_read_only(error):
            self._pool.clear()  # the master is another one now: new connections find it
        return LogUnavailable(explain(error), RETRY_AFTER)


def _fitting(entries: Sequence[Entry], size: int, most: int) -> int:
    """How many more entries like these fit into so many bytes of data; at least one, at most `most`."""
    average = sum(len(fields[3]) for _, fields in entries if len(fields) > 3) // max(len(entries), 1)
    return max(1, min(size // max(average, 1), most))
