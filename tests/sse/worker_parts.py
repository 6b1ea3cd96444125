"""A worker's inside without a worker: a real log, a hub that follows it, streams that are generators."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sse.auth.address import address_bucket
from sse.events.gzipped import HEAD
from sse.events.model import Event, Record, parse_id, parse_since
from sse.fanout import Fanout
from sse.log import Bounds, ChannelInfo, Erased, Log, LogUnavailable, RetainRule, open_log
from sse.log.base import ANY, Expected, LogReplaced
from sse.settings import Settings
from sse.streams.group import Group, Subscription
from sse.streams.gzip_stream import GzipStream
from sse.streams.hub import Hub
from sse.streams.pull import PullStream
from sse.streams.replay import Start
from sse.streams.stats import Stats
from sse.streams.stream import OWN_CLIENT, Stream
from tests.support.sse_parser import ChunkedDecoder, EventParser, StreamEvent
from tests.support.wait import eventually

THREE_FRAMES = 1024  # bytes; the smallest window there is


class TroubledLog:
    """A log that counts what is asked of it, and fails or hesitates when it is told to."""

    def __init__(self, log: Log) -> None:
        self.inner = log
        self.shared = log.shared
        self.notices_gaps = log.notices_gaps
        self.asked: Counter[str] = Counter()
        self.down = False
        #: cleared: the tailer is given nothing
        self.flowing = threading.Event()
        self.flowing.set()
        #: called within each `read`, after the records were fetched, with what was asked and what came
        self.on_read: Any = None

    @property
    def reads(self) -> int:
        """How often something was read on behalf of streams."""
        return sum(self.asked[what] for what in ("read", "newest", "floor", "bounds"))

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.down:
            raise LogUnavailable("told to be down")

    def append(
        self,
        events: Sequence[Event],
        *,
        key: str | None = None,
        digest: bytes = b"",
        trace: str | None = None,
        close: Collection[str] = (),
    ) -> list[int]:
        self._ask("append")
        return self.inner.append(events, key=key, digest=digest, trace=trace, close=close)

    def erase(self, channel: str) -> Erased:
        self._ask("erase")
        return self.inner.erase(channel)

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        self._ask("gone")
        return self.inner.gone(channels, after)

    def closed(self, channels: Collection[str]) -> dict[str, int]:
        self._ask("closed")
        return self.inner.closed(channels)

    def channels(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[ChannelInfo]:
        self._ask("channels")
        return self.inner.channels(prefix, after, limit)

    def put_note(self, kind: str, name: str, value: str, seconds: float, *, expected: Expected = ANY) -> bool:
        self._ask("put_note")
        return self.inner.put_note(kind, name, value, seconds, expected=expected)

    def notes(self, kind: str) -> dict[str, str]:
        self._ask("notes")
        return self.inner.notes(kind)

    def drop_note(self, kind: str, name: str) -> None:
        self._ask("drop_note")
        self.inner.drop_note(kind, name)

    def read(self, channels: Collection[str] | None, after: int, limit: int, max_bytes: int) -> list[Record]:
        self._ask("read")
        records = self.inner.read(channels, after, limit, max_bytes)
        if self.on_read is not None:
            self.on_read(channels, after, records)
        return records

    def newest(self, channels: Collection[str] | None, limit: int, max_bytes: int) -> list[Record]:
        self._ask("newest")
        return self.inner.newest(channels, limit, max_bytes)

    def floor(self, channels: Collection[str] | None, after: int, keep: int) -> int | None:
        self._ask("floor")
        return self.inner.floor(channels, after, keep)

    def bounds(self) -> Bounds:
        self._ask("bounds")
        return self.inner.bounds()

    def follow(self, after: int, stop: threading.Event) -> Iterator[list[Record]]:
        self._ask("follow")
        followed = self.inner
        for batch in followed.follow(after, stop):
            if self.inner is not followed:
                raise LogReplaced("told to be another one")
            while not self.flowing.wait(0.01):
                if stop.is_set():
                    return
            if self.down:
                raise LogUnavailable("told to be down")
            yield batch

    def wake(self) -> None:
        self.inner.wake()

    def trim(self) -> int:
        self._ask("trim")
        return self.inner.trim()

    def retain(self, events: int, seconds: float, rules: Sequence[RetainRule] = ()) -> None:
        self.inner.retain(events, seconds, rules)

    def replace_by(self, log: Log) -> None:
        """From now on this is another log."""
        old, self.inner = self.inner, log
        old.wake()

    def trim_all(self) -> None:
        while self.inner.trim():
            pass

    def close(self) -> None:
        self.inner.close()


class Parts:
    """One worker's log and hub. Use it as a context manager.

    url: the log's; others may use it, too. settings: by the names of docs/settings.md.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        self._given = {"SSE_LOG": url, "SSE_HEARTBEAT": 3600, **settings}
        self.settings = Settings.from_mapping(self._given)
        self.log = TroubledLog(
            open_log(
                url,
                retain_events=self.settings.sse_retain_events,
                retain_seconds=self.settings.sse_retain_seconds,
            )
        )
        self.ended: list[tuple[str, int]] = []  # reason and events of each stream that has ended
        self.hub = Hub(
            self.log,
            self.settings,
            Stats(),
            on_close=lambda stream, reason, now: self.ended.append((reason, stream.events)),
            site_of=address_bucket,
        )

    def start(self) -> None:
        self.hub.start()
        assert self.hub.wait_ready(5)

    def change(self, **settings: Any) -> None:
        """As the settings file does while all goes on."""
        self.settings.become(Settings.from_mapping({**self._given, **settings}))()

    def __enter__(self) -> Parts:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.log.flowing.set()
        self.hub.stop()
        self.log.close()

    def append(self, *data: str, channel: str = "a", event: str | None = None) -> list[int]:
        """Append events one by one; returns when the hub has them, too."""
        positions = [self.log.append([Event(channel, text, event)])[0] for text in data]
        if self.log.flowing.is_set():
            self.reach(positions[-1])
        return positions

    def reach(self, position: int) -> None:
        """Wait until the hub has read the log through this position."""
        eventually(lambda: self.hub.window.position >= position, 5, "the tailer does not come", interval=0.001)

    def resolve(
        self, text: str | None, *channels: str, since: bool = False, types: frozenset[str] | None = None
    ) -> Start:
        """Where a stream with this cursor begins."""
        group = self.hub.join(Subscription(frozenset(channels or ("a",)), types))
        cursor = None
        with contextlib.suppress(ValueError):
            cursor = None if text is None else (parse_since if since else parse_id)(text)
        return self.hub.replay.resolve(group, text, cursor)

    def open(
        self,
        text: str | None,
        *channels: str,
        since: bool = False,
        types: frozenset[str] | None = None,
        envelope: bool = False,
        plain: bool = False,
        ends_in: float = float("inf"),
        ends_as: str = "lease",
    ) -> Pulled:
        """A generator stream from this cursor on; ``ends_in`` seconds from now."""
        hub = self.hub
        assert hub.admission.admit("-") is None
        group = hub.join(Subscription(frozenset(channels or ("a",)), types, envelope, plain))
        now = time.monotonic()
        cursor = None
        with contextlib.suppress(ValueError):
            cursor = None if text is None else (parse_since if since else parse_id)(text)
        start = hub.replay.resolve(group, text, cursor)
        ends_at = now + ends_in
        stream = PullStream(
            hub, group, start.cursor, now=now, ends_at=ends_at, ends_as=ends_as, client="-", told=start.told
        )
        return Pulled(stream, start, self.settings.sse_retry)


class Pulled:
    """A generator stream and its client in one: what came out, as a browser would understand it."""

    def __init__(self, stream: PullStream, start: Start, retry_ms: int) -> None:
        self.stream = stream
        self.start = start
        self.parser = EventParser()
        self.blocks = self.parser.feed(stream.group.form.opening(start.cursor, retry_ms, 0) + (start.reset or b""))
        self._chunks = stream.chunks()

    @property
    def last_event_id(self) -> str:
        return self.parser.last_event_id

    @property
    def data(self) -> list[str]:
        """The data of the events so far."""
        return [block.data or "" for block in self.blocks if not block.is_control]

    @property
    def ids(self) -> list[int]:
        """The positions of the events so far."""
        return [parse_id(block.id or "") for block in self.blocks if not block.is_control]

    def turn(self) -> list[StreamEvent] | None:
        """One turn of the generator (blocks until there is something); None at its end."""
        try:
            blocks = self.parser.feed(next(self._chunks))
        except StopIteration:
            return None
        self.blocks += blocks
        return blocks

    def read(self, events: int) -> list[str]:
        """Turns until so many events have come in all; their data."""
        while len(self.data) < events:
            assert self.turn() is not None, f"ended after {len(self.data)} of {events} events"
        return self.data

    def read_to_end(self) -> list[str]:
        while self.turn() is not None:
            pass
        return self.data

    def close(self) -> None:
        """The client goes."""
        self._chunks.close()  # type: ignore[attr-defined]


class SocketClient:
    """One end of a socket pair, and everything that came out of it."""

    def __init__(self, sock: socket.socket, stream: Stream, begin: int) -> None:
        self.sock, self.stream, self.begin = sock, stream, begin
        self.sock.setblocking(False)
        self.decoder, self.parser = ChunkedDecoder(), EventParser()
        self.gunzip: Any = None
        if isinstance(stream, GzipStream):
            self.gunzip = zlib.decompressobj(wbits=31)
            self.gunzip.decompress(HEAD)
        self.blocks: list[StreamEvent] = []
        self.finished = False

    def read(self, most: int) -> int:
        try:
            data = self.sock.recv(most)
        except (BlockingIOError, ConnectionResetError):
            return 0
        if not data:
            self.finished = True
            return 0
        text = self.decoder.feed(data)
        if self.gunzip is not None:
            text = self.gunzip.decompress(text)  # checks what the end says of the whole text
            assert not self.gunzip.unused_data and self.gunzip.eof == self.decoder.terminated
        self.blocks += self.parser.feed(text)
        return len(data)


class Stepped:
    """A hub and its fan-out over a log in memory, with nothing that runs them: a test takes their steps one by one."""

    def __init__(self, closing: contextlib.ExitStack, **settings: Any) -> None:
        self.parts = Parts("memory:", **settings)
        closing.callback(self.parts.log.close)
        self.hub = self.parts.hub
        self.hub.tailer.warm()
        self.fanout = Fanout(self.hub)
        self.hub.connect(self.fanout)
        closing.callback(self.fanout.sockets.poller.close)
        self.closing = closing

    def append(self, *data: str) -> list[int]:
        """Append events in one go; returns when the hub has them, too."""
        positions = self.parts.log.append([Event("a", text) for text in data])
        self.dispatch()
        return positions

    def dispatch(self, most: int = 1000) -> None:
        """Give the hub what follows in the log, as its tailer would."""
        if records := self.parts.log.inner.read(None, self.hub.window.position, most, 10**9):
            self.hub.dispatch(records)

    def open(
        self,
        cursor: int,
        group: Group | None = None,
        *,
        send_buffer: int | None = None,
        client: str = "-",
        owner: str = "",
    ) -> SocketClient:
        """A stream that has been served through here; ``send_buffer`` bytes of it wait for its client at most."""
        group = group or self.hub.join(Subscription(frozenset({"a"})))
        kind = Stream if group.compression is None else GzipStream
        stream = kind(group, cursor, now=time.monotonic(), ends_at=float("inf"), client=client, owner=owner)
        ours, theirs = socket.socketpair()
        if send_buffer is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.closing.callback(ours.close)
        self.hub.admission.streams += client != OWN_CLIENT
        self.fanout.adopt(stream, theirs.detach())
        return SocketClient(ours, stream, cursor)

    def poll(self) -> None:
        """Let the fan-out see which sockets have room, or have gone."""
        self.fanout.poll()


def numbers(first: int, last: int) -> list[str]:
    """``["first", …, "last"]``: the data of consecutive events."""
    return [str(number) for number in range(first, last + 1)]


def reset_of(stream: Pulled) -> dict[str, Any] | None:
    """The ``stream-reset`` that a stream began with."""
    resets = [block for block in stream.blocks if block.event == "stream-reset"]
    assert len(resets) <= 1
    return json.loads(resets[0].data or "") if resets else None
