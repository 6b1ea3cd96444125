"""The log in Redis: one stream for many workers and pods (Redis 6.2 or newer, Valkey).

**Storing** is one script, so one round trip, whatever the number of events. **Following** is a blocking XREAD on a
connection of its own, which any append wakes. Everything else shares a few connections. ``scripts`` describes
the keys, ``url`` the forms of the URL.

**The index.** A channel is replayed from its own index, without reading other channels' events: a sorted set of
8-byte positions. It costs 110 bytes an event (22 while a channel has no more than 128) and 3 µs of Redis's time an
append. A stream for each channel would cost 11 bytes an event, but 4.3 KB a channel however small, and could not
count: ``floor`` is O(log n) here. Index and stream are trimmed by one script, so their size is bounded by the same
retention.

**The book.** What the log knows of its channels (names, counts, bytes) no publisher writes: it is counted from the
stream by whoever asks, and once a second by the worker that trims (``scripts.book``).

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
answers before it has written. ``always`` prevents both. ``?sync=full`` asks for it, and for Redis's word that each
write was synced (``WAITAOF``); followers get nothing before either. Without that file Redis starts with its last dump.
Clients are told of losses as above.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence

import redis

from ...events.markers import end_marker
from ...events.model import Event, Record, format_id
from ...events.patterns import matcher
from ...events.trace import Trace
from ...runtime.cooperation import offload, prepare_threads
from ..base import (
    ANY,
    CHANNELS_MOST,
    FOLLOW_CHARS,
    OFFLOAD_EVENTS,
    Batch,
    Bounds,
    ChannelInfo,
    Erased,
    Expected,
    LogRefused,
    LogUnavailable,
    RetainRule,
    Usage,
)
from .append import Appender
from .channels import Channels, Selection
from .check import read_info
from .client import Client
from .codec import batches, decode, position_of
from .erase import Eraser
from .errors import REFUSALS, explain
from .follow import Tail
from .link import Link
from .read import floor, floor_of_all, read_index, scan
from .scripts import BOUNDS, NOTES, PUT
from .upkeep import Upkeep
from .url import RedisUrl, parse_url

logger = logging.getLogger("headwater.log.redis")


class RedisLog:
    """The log in Redis. For how long a failure takes to show, see ``link``, ``client`` and ``breaker``."""

    shared = True
    notices_gaps = True

    def __init__(self, target: RedisUrl, *, prefix: str, retain_events: int, retain_seconds: float) -> None:
        prepare_threads()
        self._client = Client(target, prefix)
        self._appender = Appender(self._client)
        self._channels = Channels(self._client)
        self._eraser = Eraser(self._client, self._channels)
        self._upkeep = Upkeep(self._client, self._channels, self._eraser)
        self._followers: dict[Link, threading.Event] = {}
        self.retain(retain_events, retain_seconds)

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
        ends = 0
        if close:
            markers = [end_marker(channel) for channel in sorted(set(close))]
            events, ends = [*events, *markers], len(markers)
        if not events:
            return []
        if len(events) > OFFLOAD_EVENTS:
            return offload(self._appender.append, events, ends, key, digest, trace)
        return self._appender.append(events, ends, key, digest, trace)

    def erase(self, channel: str) -> Erased:
        """See ``Log.erase``. For how its bytes go, see ``scripts.erase``."""
        return self._eraser.erase(channel)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        """See ``Log.read``. Two round trips for each 500 records of some channels, one for 5,000 of all."""
        selection = self._select(channels)
        if selection is None:
            return scan(self._client, _wanted(channels), format_id(after), limit, max_bytes, reverse=False)
        return read_index(self._client, selection, after, limit, max_bytes, reverse=False)

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        """See ``Log.newest``. Costs what ``read`` does."""
        selection = self._select(channels)
        if selection is None:
            return scan(self._client, _wanted(channels), "", limit, max_bytes, reverse=True)[::-1]
        return read_index(self._client, selection, 0, limit, max_bytes, reverse=True)[::-1]

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        """See ``Log.floor``."""
        selection = self._select(channels)
        if selection is None:
            return floor_of_all(self._client, _wanted(channels), after, keep)
        latest = self.bounds().latest if selection.through is None else selection.through
        return floor(self._client, selection.names, after, keep, latest)

    def _select(self, channels: Collection[str] | None) -> Selection | None:
        """Return the channels whose indexes are to be read; None if the stream is to be read instead."""
        return None if channels is None else self._channels.select(channels)

    def bounds(self) -> Bounds:
        """See ``Log.bounds``. Creates the log if there is none."""
        created, latest, trimmed, oldest, redis_ms, lost, began, erased = self._client.run(BOUNDS, [])
        self._appender.learn_clock(redis_ms)
        if self._client.history is None:
            self._client.history = created, lost
        first, mark = (position_of(id) if id else None for id in (oldest, lost))
        marks = position_of(trimmed), mark or 0, position_of(began), position_of(erased)
        bounds = Bounds(first, position_of(latest), *marks)
        self._client.knows(bounds.latest)  # streams open at this position
        return bounds

    # ── channels ──────────────────────────────────────────────────────────────────────────────────────────

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        """See ``Log.gone``."""
        if channels is None:
            bounds = self.bounds()
            highest = bounds.trimmed if bounds.trimmed != bounds.began else 0
        else:
            highest = self._channels.gone(channels)
        return highest if highest > after else 0

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        """See ``Log.closed``."""
        return self._channels.closed(channels)

    def channels(self, prefix: str = "", after: str = "", limit: int = CHANNELS_MOST) -> list[ChannelInfo]:
        """See ``Log.channels``."""
        return self._channels.page(prefix, after, min(limit, CHANNELS_MOST))

    # ── notes ─────────────────────────────────────────────────────────────────────────────────────────────

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        """See ``Log.put_note``."""
        condition = ("any",) if expected is ANY else ("none",) if expected is None else ("is", expected)
        args = name, value, max(int(seconds * 1000), 1), *condition
        return bool(self._client.store(PUT, args, self._client.keys.note(kind)))

    def notes(self, kind: str) -> dict[str, str]:
        """See ``Log.notes``."""
        found = map(bytes.decode, self._client.run(NOTES, [], self._client.keys.note(kind)))
        return dict(zip(found, found, strict=True))

    def drop_note(self, kind: str, name: str) -> None:
        """See ``Log.drop_note``."""
        self._client.one("HDEL", self._client.keys.note(kind), name)

    # ── upkeep ────────────────────────────────────────────────────────────────────────────────────────────

    def trim(self) -> int:
        """See ``Log.trim``."""
        return self._upkeep.trim()

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        """See ``Log.retain``."""
        self._upkeep.retain(events, seconds, rules)

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

    def close(self) -> None:
        """See ``Log.close``."""
        self._client.close()
        for link in list(self._followers):
            link.interrupt()


def _wanted(channels: Collection[str] | None) -> Callable[[str], bool] | None:
    return None if channels is None else matcher(channels)
