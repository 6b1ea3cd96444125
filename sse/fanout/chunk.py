"""Frames joined into the bytes that streams are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..events.chunked import encode_chunk
from ..events.wire import Frame
from ..streams.forms import USUAL, Form, count_events


class Chunk(NamedTuple):
    """Frames on the wire, shared by all streams that are sent them.

    position  a stream that was sent the chunk has been served through this position
    events    number of events, without markers
    body      the bytes without chunked coding
    chunked   the same bytes as one chunk (RFC 9112 §7.1)
    """

    position: int
    events: int
    body: bytes
    chunked: bytes

    @classmethod
    def of(cls, frames: Sequence[Frame], position: int, form: Form = USUAL) -> Chunk:
        """Join frames. ``position`` may lie beyond the last one, if the log has no event for these streams between."""
        body = b"".join(form.wires(frames))
        return cls(position, count_events(frames), body, encode_chunk(body))
