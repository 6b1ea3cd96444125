"""Watching a stream: its events, each with the time it came."""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

from .wire import Answer, Target, ask

_STAMP = re.compile(r"(?<!\d)(1[6-9]\d{11})(?!\d)")  # a unix time in ms, 2020 to 2033


@dataclass(frozen=True, slots=True)
class Event:
    """One block of a stream."""

    at: float  # monotonic
    id: str | None
    type: str
    data: str | None  # None for a block without data: a comment, a `retry:`
    retry: bool

    @property
    def stamp(self) -> float | None:
        """When it was sent, if it says so in ms of unix time."""
        found = _STAMP.search(f"{self.data or ''} {self.id or ''}")
        return int(found[1]) / 1000 if found else None


@dataclass
class Watched:
    """What was seen of one stream."""

    where: Target
    answer: Answer
    events: list[Event] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)  # of any bytes
    watched: float = 0.0  # seconds
    wall: float = 0.0  # unix time minus monotonic
    unzip: Any = field(default_factory=lambda: zlib.decompressobj(wbits=31), repr=False)
    raw: bytes = field(default=b"", repr=False)  # a compressed stream, its first 64 KB

    def inflate(self, piece: bytes) -> bytes:
        """What a piece of a gzip stream says at once; nothing if it is another coding."""
        try:
            return self.unzip.decompress(piece) if self.answer.headers["content-encoding"] == "gzip" else b""
        except zlib.error:
            return b""

    @property
    def is_stream(self) -> bool:
        kind = self.answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self.answer.status == 200 and kind == "text/event-stream"

    @property
    def with_data(self) -> list[Event]:
        return [event for event in self.events if event.data is not None]

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events if event.id]

    @property
    def longest_silence(self) -> float:
        times = [self.answer.asked + self.answer.head_seconds, *self.arrivals]
        if not self.answer.ended:
            times.append(self.answer.asked + self.watched)
        return max((later - earlier for earlier, later in zip(times, times[1:], strict=False)), default=0.0)


def watch(where: Target, headers: dict[str, str], seconds: float, enough: int | None = None) -> Watched:
    """Watch a stream for ``seconds``, or until ``enough`` events came. Raises CannotRun if nothing answers."""
    answer = ask(where, {"Accept": "text/event-stream", "Cache-Control": "no-cache", **headers})
    watched = Watched(where, answer, wall=time.time() - time.monotonic())
    try:
        if watched.is_stream:
            reader = _Blocks()
            for at, piece in answer.pieces(answer.asked + seconds):
                watched.arrivals.append(at)
                if answer.headers.get("content-encoding", "identity") != "identity":
                    watched.raw = (watched.raw + piece)[:65536]
                    piece = watched.inflate(piece)
                watched.events += reader.feed(at, piece)
                if enough is not None and len(watched.with_data) >= enough:
                    break
        watched.watched = time.monotonic() - answer.asked
    finally:
        answer.close()
    return watched


class _Blocks:
    """Blocks between blank lines (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._text = ""
        self._bytes = b""

    def feed(self, at: float, piece: bytes) -> list[Event]:
        self._bytes += piece
        cut = self._bytes.rfind(b"\n") + 1
        self._text += self._bytes[:cut].decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
        self._bytes = self._bytes[cut:][-1_000_000:]
        *blocks, self._text = self._text.split("\n\n")
        self._text = self._text[-1_000_000:]
        return [_event(at, block) for block in blocks if block.strip()]


def _event(at: float, block: str) -> Event:
    fields: dict[str, str] = {}
    data: list[str] = []
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name:
            fields[name] = value
    return Event(
        at, fields.get("id"), fields.get("event", "message"), "\n".join(data) if data else None, "retry" in fields
    )
