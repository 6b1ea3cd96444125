"""Reading an event stream: bytes in, blocks out (WHATWG HTML §9.2.5 and §9.2.6)."""

from __future__ import annotations

import re
from typing import NamedTuple

# Threat: a server that never ends a line. Twice the largest event that the service can be set to take.
MAX_LINE_BYTES = 2 * 16_777_216

_LINE_END = re.compile(rb"\r\n|\n|\r")


class Block(NamedTuple):
    """What stood between two blank lines; None for a field that was not there, or whose value does not count."""

    id: str | None
    event: str | None
    data: str | None
    retry: int | None


class Blocks:
    """Finds the blocks of a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._clear()

    def _clear(self) -> None:
        self._id: str | None = None
        self._event: str | None = None
        self._data: list[str] = []
        self._retry: int | None = None

    def feed(self, piece: bytes) -> list[Block]:
        """Return the blocks that this piece completes. Raises ValueError for a line that is too long."""
        text = self._rest + piece
        if not self._begun:
            if len(text) < 3 and b"\xef\xbb\xbf".startswith(text):
                self._rest = text  # it may be a byte order mark
                return []
            self._begun = True
            text = text.removeprefix(b"\xef\xbb\xbf")
        found: list[Block] = []
        begin = 0
        for end in _LINE_END.finditer(text):
            if end[0] == b"\r" and end.end() == len(text):
                break  # the LF may follow
            line = text[begin : end.start()]
            begin = end.end()
            if line:
                self._take(line.decode(errors="replace"))
                continue
            block = Block(self._id, self._event, "\n".join(self._data) if self._data else None, self._retry)
            self._clear()
            if block != (None, None, None, None):
                found.append(block)
        self._rest = text[begin:]
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        return found

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value or None
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value)
