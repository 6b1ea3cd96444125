"""Frames joined into the bytes that streams are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..events import gzipped
from ..events.chunked import encode_chunk
from ..events.wire import Frame
from ..streams.compression import NOT_MADE
from ..streams.forms import count_events
from ..streams.group import Group


class Chunk(NamedTuple):
    """Frames on the wire, shared by all streams that are sent them.

    position  a stream that was sent the chunk has been served through this position
    events    number of events, without markers
    size      bytes of these events, without any coding
    body      the text; longer than ``size`` if not all of it counts
    wires     the bytes to send, by a stream's ``coding``; empty as long as they are not compressed
    """

    position: int
    events: int
    size: int
    body: bytes
    wires: tuple[bytes, ...]

    @classmethod
    def of(cls, frames: Sequence[Frame], position: int, group: Group) -> Chunk:
        """Join frames. ``position`` may lie beyond the last one, if the log has no event for these streams between."""
        body = b"".join(group.form.wires(frames))
        return cls(position, count_events(frames), len(body), body, _wires(body, group))

    @classmethod
    def heartbeat(cls, position: int, body: bytes, group: Group) -> Chunk:
        """Return a heartbeat, which no count includes."""
        return cls(position, 0, 0, body, _wires(body, group))

    def alone(self) -> Chunk:
        """Return it coded for streams that are not live."""
        if self.wires or not self.body:
            return self
        return self._replace(wires=(NOT_MADE, NOT_MADE, encode_chunk(gzipped.alone(self.body)), NOT_MADE))



def _wires(body: bytes, group: Group) -> tuple[bytes, ...]:
    return () if group.compression is not None else (body, encode_chunk(body))
