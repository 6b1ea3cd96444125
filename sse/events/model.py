"""Events, their ids, and their bytes on the wire. Pure: no I/O, no clock, nothing else of this package.

Theory of operation
===================

**Ids are times.** An event's id is ``<unix milliseconds>-<n>``; `n` tells events of one millisecond apart.
Inside the program an id is one int, its *position*: ``ms << 20 | n``. So positions sort as ids do, the one
after `p` is ``p + 1`` (a full `n` carries into the milliseconds), and "everything since 9:00" is a cursor
like any other. "Resume after p" always means: positions greater than p.

**What a client does with the bytes** is in the WHATWG HTML standard: the grammar in §9.2.5 ("Parsing an event
stream"), the meaning in §9.2.6 ("Interpreting an event stream"). All that is used here:

- A line ends at CRLF, LF or CR, and at nothing else: U+2028, U+0085 or a form feed are ordinary characters
  (so `str.splitlines` is the wrong tool). A blank line ends a block.
- A line is ``field: value``, or a comment when it begins with a colon. *One* space after the colon is
  removed. We always write that space, so a value that begins with a space, or with U+FEFF, arrives as it was.
- ``data``: each line appends its value and a LF to the data buffer; the last LF goes at dispatch. So CR and
  CRLF arrive as LF, and ``data:`` with no value is an event with empty data, which is not the same as none.
- ``id`` is ignored when it contains NUL, and ``retry`` unless it is ASCII digits only.
- A block without ``data`` dispatches nothing, but sets the last event ID all the same (dispatching sets it in
  its step 1, and returns for an empty data buffer in step 2). Nothing here relies on that: Firefox and
  many client libraries ignore the ``id`` of such a block, and others report it as an event with empty data. So
  each block that has an ``id`` also has data. In particular the opening is a heartbeat: a client that loses its
  connection before its first event knows where it was.
- A block that the end of the stream cuts off is discarded: a clean end comes after a blank line.

**No injection.** A field's value ends with its line, so a CR or LF inside a value would let its author write
fields, and whole events, of their own. Data is split, with a ``data:`` for each line. Every other field that
a user can set is refused with CR, LF or NUL in it; a client's cursor comes back to it only inside JSON.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

# --- Limits -------------------------------------------------------------------------------------------------

SEQUENCE_BITS: Final = 20
MAX_SEQUENCE: Final = (1 << SEQUENCE_BITS) - 1  # a million events in one ms before ids run ahead of the clock

# The largest that fits a signed 64-bit column, reached in the year 2248. A client's cursor is clipped to it:
# else one of 60 digits would be an overflow inside the log, and not a cursor that lies in the future.
MAX_POSITION: Final = (1 << 63) - 1

# Two 20-digit numbers and a hyphen are 41. Caps what one header can make us convert, quote and send back.
MAX_CURSOR_CHARS: Final = 64

# Names go into URLs, token claims, log lines and keys: no character that any of them would have to escape.
CHANNEL_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
RESERVED_CHANNEL_PATTERN: Final = re.compile(r"_[A-Za-z0-9._:-]{1,127}")

# The size limit of an event counts its data; this keeps megabytes from entering beside it, as a type.
MAX_TYPE_CHARS: Final = 1024

# Clients wait with setTimeout, a signed 32-bit timer: beyond it they reconnect at once, in a loop.
MAX_RETRY_MS: Final = 2**31 - 1

HEARTBEAT: Final = "heartbeat"
STREAM_RESET: Final = "stream-reset"
CONTROL_EVENTS: Final = frozenset({HEARTBEAT, STREAM_RESET})  # ours alone: clients act on them

ResetReason: TypeAlias = Literal["expired", "before-log", "malformed", "unknown", "too-far"]
RESET_REASONS: Final[tuple[ResetReason, ...]] = get_args(ResetReason)


class InvalidEvent(ValueError):
    """An event that its publisher got wrong. `field` is the name of the field at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class MalformedCursor(ValueError):
    """A cursor that is not in the form of an id. The message quotes no more than `MAX_CURSOR_CHARS` of it."""

    def __init__(self, text: str, allowed: str) -> None:
        super().__init__(f"cursor {text[:MAX_CURSOR_CHARS]!r}: must be {allowed}")


# --- Ids ----------------------------------------------------------------------------------------------------

# ASCII digits only: \d takes those of other scripts, and int() takes "+1" and "1_0" besides.
_ID: Final = re.compile(r"([0-9]+)-([0-9]+)")
_MS: Final = re.compile(r"[0-9]+")


def make_position(ms: int, n: int = 0) -> int:
    """The position of event `n` (from 0) of the unix millisecond `ms`; an `n` too large carries into `ms`.

    Raises `ValueError` below 0 and beyond `MAX_POSITION`.
    """
    position = (ms << SEQUENCE_BITS) + n
    if ms < 0 or n < 0 or position > MAX_POSITION:
        raise ValueError(f"position {ms}-{n}: must be from 0-0 to {format_id(MAX_POSITION)}")
    return position


def format_id(position: int) -> str:
    """The id of a position: ``<unix ms>-<n>``."""
    return f"{position >> SEQUENCE_BITS}-{position & MAX_SEQUENCE}"


def parse_id(text: str) -> int:
    """The position of an id in exactly the form ``<unix ms>-<n>``, as in a ``Last-Event-ID`` header.

    Parts that are too large are clipped (`n` to `MAX_SEQUENCE`, the whole to `MAX_POSITION`): such an id is
    well formed, only not one of ours. Raises `MalformedCursor` for all else, and beyond `MAX_CURSOR_CHARS`.
    """
    match = _ID.fullmatch(text) if len(text) <= MAX_CURSOR_CHARS else None
    if match is None:
        raise MalformedCursor(text, "<unix ms>-<n>")
    ms, n = int(match[1]), int(match[2])
    return min(ms << SEQUENCE_BITS | min(n, MAX_SEQUENCE), MAX_POSITION)


def parse_since(text: str) -> int:
    """The position after which ``since`` begins: an id (after it), a unix ms (from it on), or ``earliest``.

    Raises `MalformedCursor` for everything else.
    """
    if text == "earliest":
        return 0
    if len(text) <= MAX_CURSOR_CHARS and _MS.fullmatch(text):
        return min(max((int(text) << SEQUENCE_BITS) - 1, 0), MAX_POSITION)
    try:
        return parse_id(text)
    except MalformedCursor:
        raise MalformedCursor(text, "<unix ms>-<n>, <unix ms> or earliest") from None


# --- Fields -------------------------------------------------------------------------------------------------


def check_channel(name: str, *, reserved_ok: bool = False) -> str:
    """The channel name, if it is one; names that begin with ``_`` are the service's own: see `reserved_ok`.

    Raises `InvalidEvent` for the field ``channel``.
    """
    if isinstance(name, str):
        if CHANNEL_PATTERN.fullmatch(name) or (reserved_ok and RESERVED_CHANNEL_PATTERN.fullmatch(name)):
            return str.__str__(name)
        if name.startswith("_") and not reserved_ok:
            raise InvalidEvent("channel", "a name that begins with _ is reserved")
    raise InvalidEvent("channel", "must be 1 to 128 of A-Z a-z 0-9 . _ : - and begin with a letter or digit")


def check_text(field: str, value: object) -> str:
    """`value` as a plain str that UTF-8 can carry: §9.2.5 allows a stream no other encoding."""
    if not isinstance(value, str):
        raise InvalidEvent(field, f"must be str, not {type(value).__name__}")
    if type(value) is not str:
        value = str.__str__(value)  # only its characters: a (str, Enum) would format itself as "Kind.NAME"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidEvent(field, f"character {error.start} is a lone surrogate, not UTF-8") from None
    return value


def _check_line(field: str, value: object) -> str:
    """`value` as text that is safe in one line. NUL: §9.2.6 ignores an id with it, C ends a text there."""
    text = check_text(field, value)
    if "\n" in text or "\r" in text or "\0" in text:
        raise InvalidEvent(field, "must not contain CR, LF or NUL")
    return text


def _check_type(value: object) -> str:
    """`value` as an event type. An empty one would arrive as "message" (§9.2.6, dispatching)."""
    text = _check_line("event", value)
    if not 0 < len(text) <= MAX_TYPE_CHARS:
        raise InvalidEvent("event", f"must be 1 to {MAX_TYPE_CHARS} characters")
    return text


def check_free_type(value: object) -> str:
    """`value` as an event type that is not one of ours."""
    text = _check_type(value)
    if text in CONTROL_EVENTS:
        raise InvalidEvent("event", f"{text} is reserved for the service's own control events")
    return text


def check_retry(value: object) -> int:
    # Exactly int: True would be written as "True", and §9.2.6 takes ASCII digits only.
    if type(value) is not int or not 0 <= value <= MAX_RETRY_MS:
        raise InvalidEvent("retry", f"must be an integer from 0 to {MAX_RETRY_MS} (milliseconds)")
    return value


@dataclass(frozen=True, slots=True)
class Event:
    """What a publisher hands over: valid from the moment it exists, so nothing behind it checks again.

    channel: see `CHANNEL_PATTERN`. data: any text, NUL and line ends included; clients see CR and CRLF as LF.
    event: the type, None for the default ("message"). retry: the client's reconnection time in milliseconds.
    Raises `InvalidEvent`, whose `field` is one of these four.
    """

    channel: str
    data: str
    event: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        # Stored back where the checks made a plain one of a subclass of str.
        channel, data = check_channel(self.channel), check_text("data", self.data)
        if channel is not self.channel:
            object.__setattr__(self, "channel", channel)
        if data is not self.data:
            object.__setattr__(self, "data", data)
        if self.event is not None:
            event = check_free_type(self.event)
            if event is not self.event:
                object.__setattr__(self, "event", event)
        if self.retry is not None:
            check_retry(self.retry)


class Record(NamedTuple):
    """An event as a log stores it and hands it back."""

    position: int
    channel: str
    event: str | None
    retry: int | None
    data: str


class Frame(NamedTuple):
    """An event's bytes, made once in a worker and shared by every subscriber, and what streams select by."""

    position: int
    channel: str
    event: str | None
    wire: bytes


# --- Blocks -------------------------------------------------------------------------------------------------

_tuple_new = tuple.__new__  # what Frame() calls, without the cost of the call between
_VISIBLE_BREAKS: Final = str.maketrans("\r\n\0", "\ufffd\ufffd\ufffd")


def _fold(data: str, field: str = "data") -> str:
    """`data` with each of its line ends (CRLF is one) turned into the start of a new line of that field."""
    return data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"\n{field}: ")


def encode_frame(record: Record) -> Frame:
    """The frame of a stored event. The hot path: each event of the log passes here once in every worker.

    It raises for no record: a log that other programs can write to may hold a type or a text that `Event`
    would have refused, and one such record must neither inject fields nor stop the delivery of those behind
    it. Line ends and NUL in a type become U+FFFD, a lone surrogate becomes "?".
    """
    position, channel, event, retry, data = record
    if "\n" in data or "\r" in data:
        data = _fold(data)
    if event is not None and ("\n" in event or "\r" in event or "\0" in event):
        event = event.translate(_VISIBLE_BREAKS)
    # format_id written out, and one f-string for each usual shape: this is what 1 µs depends on.
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
    return _tuple_new(Frame, (position, channel, event, wire))


def encode_block(
    data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
) -> bytes:
    """Any block: the fields that are not None, in the order id, event, retry, data, then the blank line.

    An empty `id` is valid: a client forgets its cursor. `event` may be a control event. `retry` is in ms.
    Raises `InvalidEvent` by the rules of `Event`, and for an `id` with CR, LF or NUL.
    """
    block = ""
    if id is not None:
        block += f"id: {_check_line('id', id)}\n"
    if event is not None:
        block += f"event: {_check_type(event)}\n"
    if retry is not None:
        block += f"retry: {check_retry(retry)}\n"
    if data is not None:
        block += f"data: {_fold(check_text('data', data))}\n"
    return f"{block}\n".encode()


def comment_block(text: str = "") -> bytes:
    """A comment, a line for each line of `text`. Clients ignore it (§9.2.6); proxies see traffic (§9.2.7).

    Raises `InvalidEvent` for text that UTF-8 cannot carry.
    """
    return f": {_fold(check_text('comment', text), '')}\n\n".encode()


def opening_block(position: int | None, retry_ms: int, now_ms: int) -> bytes:
    """The first block of a stream: a heartbeat with the client's cursor and its reconnection time in ms.

    The `retry` tells it from the heartbeats that follow, which show that the stream itself is alive. position:
    None leaves the client's cursor as it is. now_ms: the server's unix time.
    Raises `InvalidEvent` for a `retry_ms` out of range.
    """
    cursor = "" if position is None else f"id: {format_id(position)}\n"
    return f"{cursor}retry: {check_retry(retry_ms)}\nevent: {HEARTBEAT}\ndata: {now_ms}\n\n".encode()


def retry_block(retry_ms: int) -> bytes:
    """The reconnection time in ms alone, as the last block before a clean end; the cursor stays as it is.

    Raises `InvalidEvent` for a `retry_ms` out of range.
    """
    return f"retry: {check_retry(retry_ms)}\n\n".encode()


def heartbeat_block(position: int, now_ms: int) -> bytes:
    """A sign of life: the position through which the stream is complete, and the server's unix time in ms."""
    return f"id: {format_id(position)}\nevent: {HEARTBEAT}\ndata: {now_ms}\n\n".encode()


def reset_block(reason: ResetReason, requested: str, oldest: int | None, latest: int, position: int) -> bytes:
    """Tells a client, in band, that its cursor could not be honoured: a browser cannot read response headers.

    requested: the cursor as it came; untrusted, so `MAX_CURSOR_CHARS` of it at most return, in printable
    ASCII. oldest (None for an empty log), latest: the log's bounds. position: the cursor from here on.
    """
    shown = "".join(c if " " <= c <= "~" else "?" for c in requested[:MAX_CURSOR_CHARS])
    detail = {
        "reason": reason,
        "requested": shown,
        "oldest": None if oldest is None else format_id(oldest),
        "latest": format_id(latest),
    }
    return encode_block(json.dumps(detail, separators=(",", ":")), event=STREAM_RESET, id=format_id(position))
