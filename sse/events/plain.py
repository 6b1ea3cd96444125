"""The bytes of a stream that carries nothing but what was published (``?plain=1``). Pure.

For clients that take every event for data of their own, such as the AI SDK and the ``openai`` package. What the service
itself says becomes comments, which clients ignore (WHATWG HTML §9.2.6). The functions stand for those of the same
name in :mod:`sse.events.wire`.

A comment is one line, without the blank line that would end a block: once it has seen an ``id``, the ``openai`` package
takes every block for an event, also one of comments only, and fails on its empty data. The line becomes part of the
next event's block. Only the opening is a block of its own, as no id can precede it.
"""

from __future__ import annotations

from .model import HEARTBEAT, STREAM_RESET, check_retry
from .wire import Frame, ResetReason, encode_comment, reset_detail


def opening_block(position: int | None, retry_ms: int, now_ms: int) -> bytes:
    """Encode a stream's first block. It has neither a cursor nor a reconnection time."""
    return heartbeat_block(0, now_ms) + b"\n"


def heartbeat_block(position: int, now_ms: int) -> bytes:
    """Encode a sign of life, with the server's unix time in ms."""
    return encode_comment(f"{HEARTBEAT} {now_ms}")


def reset_block(reason: ResetReason, requested: str, oldest: int | None, latest: int, position: int) -> bytes:
    """Encode the comment that tells of a cursor that cannot be used."""
    return encode_comment(f"{STREAM_RESET} {reset_detail(reason, requested, oldest, latest)}")


def retry_block(retry_ms: int) -> bytes:
    """Encode the reconnection time before a clean end, in ms. A client acts on it at the end of its line (§9.2.6).

    Raises `InvalidEvent` for a `retry_ms` out of range.
    """
    return f"retry: {check_retry(retry_ms)}\n".encode()


def marker_block(frame: Frame) -> bytes:
    """Encode a marker (:mod:`sse.events.markers`) as a comment."""
    return encode_comment(f"{frame.event} {frame.text()}")
