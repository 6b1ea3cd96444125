"""An event's bytes on the wire, and those of the service's own blocks. Pure.

**What a client does with the bytes** is in the WHATWG HTML standard: the grammar in §9.2.5 ("Parsing an event stream"),
the meaning in §9.2.6 ("Interpreting an event stream"). What matters here:

- A line ends at CRLF, LF or CR, and at nothing else: U+2028, U+0085 and form feeds are ordinary characters (so
  `str.splitlines` is the wrong tool). A blank line ends a block.
- A line is ``field: value``, or a comment if it begins with a colon. *One* space after the colon is removed. We always
  write that space, so a value that begins with a space, or with U+FEFF, arrives unchanged.
- ``data``: each line appends its value and a LF to the data buffer; the last LF is removed at dispatch. So CR and CRLF
  arrive as LF, and ``data:`` without a value is an event with empty data, which is not the same as no data.
- ``id`` is ignored if it contains NUL, and ``retry`` unless it is ASCII digits only.
- A block without ``data`` dispatches nothing, but should set the last event ID. We do not rely on that: Firefox and
  many client libraries ignore the ``id`` of such a block, and others report an event with empty data. So every block
  that has an ``id`` has data, too. Above all the opening: it is a heartbeat, so a client that loses its connection
  before its first event knows where it was.
- A block cut off by the end of the stream is discarded. So a clean end comes after a blank line.

**No injection.** A value ends with its line, so a CR or LF inside one would let its author write fields, and whole
events. Data is split, with a ``data:`` for each line. Every other field that a user can set is refused with CR, LF or
NUL in it. A client's cursor is only sent back inside JSON.
"""

import json
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from .model import (
    HEARTBEAT,
    MAX_CURSOR_CHARS,
    MAX_SEQUENCE,
    SEQUENCE_BITS,
    STREAM_RESET,
    Record,
    check_line,
    check_retry,
    check_text,
    check_type,
    format_id,
)

ResetReason: TypeAlias = Literal["expired", "before-log", "malformed", "unknown", "too-far"]
RESET_REASONS: Final[tuple[ResetReason, ...]] = get_args(ResetReason)


class Frame(NamedTuple):
    """An event's bytes, made once in each worker and shared by all its streams, and what streams select by.

    original: the data, but only if it has a CR: on the wire, nothing tells that from a LF.
    """

    position: int
    channel: str
    event: str | None
    wire: bytes
    original: str | None = None

    def text(self) -> str:
        """Return the event's data as it was published."""
        if self.original is not None:
            return self.original
        # No field before the data has a line end of its own, and each line of the data has its field's name.
        _, _, data = self.wire.decode().partition("\ndata: ")
        return data[:-2].replace("\ndata: ", "\n")

    def envelope(self) -> bytes:
        """Encode the event with its channel, id, type and data as one JSON object in ``data``."""
        fields, _, _ = self.wire.partition(b"\ndata: ")
        event = {} if self.event is None else {"event": self.event}
        content = {"channel": self.channel, "id": format_id(self.position), **event, "data": self.text()}
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return b"%s\ndata: %s\n\n" % (fields, text.encode("utf-8", "replace"))


_tuple_new = tuple.__new__  # what Frame() calls, without the cost of the call between
_VISIBLE_BREAKS: Final = str.maketrans("\r\n\0", "\ufffd\ufffd\ufffd")


def _fold(data: str, field: str = "data") -> str:
    """Replace each line end in `data` (CRLF is one) by the start of a new line of that field."""
    return data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"\n{field}: ")


def encode_frame(record: Record) -> Frame:
    """Encode a stored event. The hot path: every worker encodes each event of the log once.

    It never raises. Other programs may write to the log, so a record may have a type or a text that `Event` would have
    refused. Such a record must neither inject fields nor stop the events behind it: line ends and NUL in a type become
    U+FFFD, a lone surrogate becomes "?".
    """
    position, channel, event, retry, data = record
    original = data if "\r" in data else None
    if "\n" in data or "\r" in data:
        data = _fold(data)
    if event is not None and ("\n" in event or "\r" in event or "\0" in event):
        event = event.translate(_VISIBLE_BREAKS)
    # format_id is written out, with one f-string for each usual shape: that keeps it at 1 µs.
    ms, n = position >> SEQUENCE_BITS, position & MAX_SEQUENCE
    if retry is not None:
        type_line = "" if event is None else f"event: {event}\n"
        text = f"id: {ms}-{n}\n{type_line}retry: {retry:d}\ndata: {data}\n\n"
    elif event is None:
        text = f"id: {ms}-{n}\ndata: {data}\n\n"
    else:
        text = f"id: {ms}-{n}\nevent: {event}\ndata: {data}\n\n"
    try:
        wire = text.encode()
    except UnicodeEncodeError:
        wire = text.encode("utf-8", "replace")
    return _tuple_new(Frame, (position, channel, event, wire, original))


def encode_block(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """Encode any block: the fields that are not None, in the order id, event, retry (ms), data, and the blank line.

    An empty `id` makes a client forget its cursor; `event` may be a control event.
    Raises `InvalidEvent` by the rules of `Event`, and for an `id` with CR, LF or NUL.
    """
    block = ""
    if id is not None:
        block += f"id: {check_line('id', id)}\n"
    if event is not None:
        block += f"event: {check_type(event)}\n"
    if retry is not None:
        block += f"retry: {check_retry(retry)}\n"
    if data is not None:
        block += f"data: {_fold(check_text('data', data))}\n"
    return f"{block}\n".encode()


def comment_block(text: str = "") -> bytes:
    """Encode a comment, one line for each line of `text`. Clients ignore it (§9.2.6); proxies see traffic (§9.2.7).

    Raises `InvalidEvent` for text that UTF-8 cannot carry.
    """
    return encode_comment(check_text("comment", text)) + b"\n"


def encode_comment(text: str) -> bytes:
    """Encode the lines of a comment without the blank line that ends a block."""
    return f": {_fold(text, '')}\n".encode("utf-8", "replace")


def opening_block(position: int | None, retry_ms: int, now_ms: int) -> bytes:
    """Encode a stream's first block: a heartbeat with the client's cursor and its reconnection time in ms.

    Only the first heartbeat has a `retry`; the later ones show that the stream is alive. position: None leaves the
    client's cursor as it is. now_ms: the server's unix time. Raises `InvalidEvent` for a `retry_ms` out of range.
    """
    cursor = "" if position is None else f"id: {format_id(position)}\n"
    return f"{cursor}retry: {check_retry(retry_ms)}\nevent: {HEARTBEAT}\ndata: {now_ms}\n\n".encode()


def retry_block(retry_ms: int) -> bytes:
    """Encode the last block before a clean end: the reconnection time in ms; the client's cursor stays as it is.

    Raises `InvalidEvent` for a `retry_ms` out of range.
    """
    return f"retry: {check_retry(retry_ms)}\n\n".encode()


def heartbeat_block(position: int, now_ms: int) -> bytes:
    """Encode a heartbeat: the position through which the stream is complete, and the server's unix time in ms."""
    return f"id: {format_id(position)}\nevent: {HEARTBEAT}\ndata: {now_ms}\n\n".encode()


def reset_block(reason: ResetReason, requested: str, oldest: int | None, latest: int, position: int) -> bytes:
    """Encode the block that tells a client that its cursor cannot be used; a browser cannot read response headers.

    requested: the cursor as it came; untrusted, so at most `MAX_CURSOR_CHARS` are sent back, in printable ASCII.
    oldest (None for an empty log), latest: the log's bounds. position: the cursor from here on.
    """
    detail = reset_detail(reason, requested, oldest, latest)
    return encode_block(detail, event=STREAM_RESET, id=format_id(position))


def reset_detail(reason: ResetReason, requested: str, oldest: int | None, latest: int) -> str:
    """Return a reset's data, JSON in printable ASCII."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in requested[:MAX_CURSOR_CHARS])
    detail = {
        "reason": reason,
        "requested": shown,
        "oldest": None if oldest is None else format_id(oldest),
        "latest": format_id(latest),
    }
    return json.dumps(detail, separators=(",", ":"))
