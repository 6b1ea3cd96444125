"""Reads bytes like a strict browser: HTTP/1.1 body framing and the event-stream format.

Written from the specifications, not from the code under test: RFC 9112 §7.1 (chunked), WHATWG HTML §9.2.6.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_CHUNK_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class BrokenFraming(AssertionError):
    """The server broke RFC 9112 §7.1 or the event-stream's encoding."""


class StreamEvent(NamedTuple):
    """One block of an event stream, even one that dispatches nothing (a retry alone).

    A missing or invalid field is None; ``id`` is this block's own.
    """

    id: str | None
    event: str | None
    data: str | None
    retry: int | None

    @property
    def is_control(self) -> bool:
        """Return whether it is the service's own: an opening, a retry, a heartbeat, a reset, an end."""
        return self.data is None or self.event in ("heartbeat", "stream-reset", "stream-end")

    @property
    def is_opening(self) -> bool:
        """Return whether it is an opening, a heartbeat with a retry time: the first block of a stream."""
        return self.event == "heartbeat" and self.retry is not None

    @property
    def is_heartbeat(self) -> bool:
        """Return whether it shows that the stream is alive, so not its opening."""
        return self.event == "heartbeat" and self.retry is None


class ChunkedDecoder:
    """Chunked transfer coding without extensions or trailers: this service sends neither."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0  # bytes missing from the current chunk, its CRLF included
        self.terminated = False  # the last-chunk and the empty trailer section were read
        self.chunks = 0

    @property
    def between_chunks(self) -> bool:
        """Return whether no chunk has begun: a cut here loses no event, but is still a cut."""
        return not self._left and not self._buffer

    def feed(self, octets: bytes) -> bytes:
        """Return the payload that ``octets`` completes.

        Raises BrokenFraming: a bad size line, a chunk without its CRLF, anything after the last chunk.
        """
        self._buffer += octets
        payload = bytearray()
        while self._buffer:
            if self.terminated:
                raise BrokenFraming(f"bytes after the terminating chunk: {bytes(self._buffer[:80])!r}")
            if self._left:
                if not self._chunk(payload):
                    break
                continue
            line, found, _ = bytes(self._buffer[:32]).partition(b"\r\n")
            if not found:
                if len(self._buffer) >= 32:
                    raise BrokenFraming(f"no chunk size in {bytes(self._buffer[:32])!r}")
                break
            if not _CHUNK_LINE.fullmatch(line):
                raise BrokenFraming(f"bad chunk size {line!r}")
            if size := int(line, 16):
                del self._buffer[: len(line) + 2]
                self._left = size + 2
                self.chunks += 1
            elif len(self._buffer) < len(line) + 4:
                break
            else:
                if self._buffer[len(line) + 2 : len(line) + 4] != b"\r\n":
                    raise BrokenFraming("a trailer section after the last chunk")
                del self._buffer[: len(line) + 4]
                self.terminated = True
        return bytes(payload)

    def _chunk(self, payload: bytearray) -> bool:
        """Move the current chunk's bytes; False if more are needed."""
        data = min(max(self._left - 2, 0), len(self._buffer))
        payload += self._buffer[:data]
        del self._buffer[:data]
        self._left -= data
        if self._left != 2 or len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise BrokenFraming(f"a chunk ends with {bytes(self._buffer[:2])!r}")
        del self._buffer[:2]
        self._left = 0
        return True


class EventParser:
    """Parses by WHATWG HTML §9.2.6, from any slices of the bytes."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._first = True
        self._fields: dict[str, str] = {}
        self._data: list[str] = []
        self._dirty = False
        self.last_event_id = ""
        self.comments = 0

    @property
    def partial(self) -> bool:
        """Return whether a block has begun without its empty line: it will be discarded."""
        return self._dirty or bool(self._octets)

    def feed(self, octets: bytes) -> list[StreamEvent]:
        """Return the blocks that ``octets`` completes; blocks of comments only are counted, not returned.

        Raises BrokenFraming: the stream is not UTF-8 (a browser would replace, but must never need to).
        """
        self._octets += octets
        blocks = []
        while (line := self._line()) is not None:
            if line:
                self._field(line)
            elif (block := self._end()) is not None:
                blocks.append(block)
        return blocks

    def _line(self) -> str | None:
        found = _LINE_END.search(self._octets)
        if found is None or (found[0] == b"\r" and found.end() == len(self._octets)):
            return None  # after a CR an LF may follow, and belongs to it
        raw = bytes(self._octets[: found.start()])
        end = found.end()
        del found  # it would keep the buffer from shrinking
        del self._octets[:end]
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            raise BrokenFraming(f"not UTF-8: {raw[:80]!r}") from error
        if self._first:
            self._first = False
            line = line.removeprefix("\ufeff")
        return line

    def _field(self, line: str) -> None:
        self._dirty = True
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "data":
            self._data.append(value)
        elif (
            name == "event"
            or (name == "id" and "\0" not in value)
            or (name == "retry" and re.fullmatch("[0-9]+", value))
        ):
            self._fields[name] = value

    def _end(self) -> StreamEvent | None:
        fields, data = self._fields, self._data
        self._fields, self._data, self._dirty = {}, [], False
        if not fields and not data:
            return None
        if "id" in fields:
            self.last_event_id = fields["id"]
        return StreamEvent(
            fields.get("id"),
            fields.get("event"),
            "\n".join(data) if data else None,
            int(fields["retry"]) if "retry" in fields else None,
        )
