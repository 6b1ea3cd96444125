"""What an event is: its fields and their limits, and its id. Pure: no I/O, no clock, no other room.

**Ids are times.** An event's id is ``<unix milliseconds>-<n>``; `n` tells events of one millisecond apart. Inside the
program an id is one int, its *position*: ``ms << 20 | n``. So positions sort as ids do, the one after `p` is ``p + 1``
(a full `n` carries into the milliseconds), and "everything since 9:00" is a cursor like any other. "Resume after p"
always means: positions greater than p.

"§" refers to the WHATWG HTML standard; :mod:`sse.events.wire` says what it asks of the bytes.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

# --- Limits -------------------------------------------------------------------------------------------------

SEQUENCE_BITS: Final = 20
MAX_SEQUENCE: Final = (1 << SEQUENCE_BITS) - 1  # a million events in one ms before ids run ahead of the clock

# The largest that fits a signed 64-bit column; reached in the year 2248. A client's cursor is clipped to it, or one of
# 60 digits would overflow inside the log instead of lying in the future.
MAX_POSITION: Final = (1 << 63) - 1

# Caps what one header can make us convert, quote and send back. (Two 20-digit numbers and a hyphen are 41.)
MAX_CURSOR_CHARS: Final = 64

# Names go into URLs, token claims, log lines and keys, so they have no character that any of these must escape.
CHANNEL_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
RESERVED_CHANNEL_PATTERN: Final = re.compile(r"_[A-Za-z0-9._:-]{1,127}")

# An event's size limit counts only its data; without this one, megabytes could enter as a type.
MAX_TYPE_CHARS: Final = 1024

# Clients wait with setTimeout, a signed 32-bit timer: above its range they reconnect at once, in a loop.
MAX_RETRY_MS: Final = 2**31 - 1

HEARTBEAT: Final = "heartbeat"
STREAM_RESET: Final = "stream-reset"
STREAM_END: Final = "stream-end"
RUN: Final = "run"
CONTROL_EVENTS: Final = frozenset({HEARTBEAT, STREAM_RESET, STREAM_END, RUN})  # reserved: clients act on them


class InvalidEvent(ValueError):
    """An event that breaks a rule; `field` is the name of the field at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class MalformedCursor(ValueError):
    """A cursor that does not have the form of an id. The message quotes at most `MAX_CURSOR_CHARS` of it."""

    def __init__(self, text: str, allowed: str) -> None:
        super().__init__(f"cursor {text[:MAX_CURSOR_CHARS]!r}: must be {allowed}")


# --- Ids ----------------------------------------------------------------------------------------------------

# ASCII digits only: \d also matches those of other scripts, and int() also takes "+1" and "1_0".
_ID: Final = re.compile(r"([0-9]+)-([0-9]+)")
_MS: Final = re.compile(r"[0-9]+")


def make_position(ms: int, n: int = 0) -> int:
    """Return the position of event `n` (from 0) of the unix millisecond `ms`; an `n` too large carries into `ms`.

    Raises `ValueError` below 0 and beyond `MAX_POSITION`.
    """
    position = (ms << SEQUENCE_BITS) + n
    if ms < 0 or n < 0 or position > MAX_POSITION:
        raise ValueError(f"position {ms}-{n}: must be from 0-0 to {format_id(MAX_POSITION)}")
    return position


def format_id(position: int) -> str:
    """Return the id of a position: ``<unix ms>-<n>``."""
    return f"{position >> SEQUENCE_BITS}-{position & MAX_SEQUENCE}"


def parse_id(text: str) -> int:
    """Return the position of an id of exactly the form ``<unix ms>-<n>``, as in a ``Last-Event-ID`` header.

    Parts that are too large are clipped (`n` to `MAX_SEQUENCE`, the whole to `MAX_POSITION`), because such an id is
    well formed, though not one of ours. Raises `MalformedCursor` for everything else and beyond `MAX_CURSOR_CHARS`.
    """
    match = _ID.fullmatch(text) if len(text) <= MAX_CURSOR_CHARS else None
    if match is None:
        raise MalformedCursor(text, "<unix ms>-<n>")
    ms, n = int(match[1]), int(match[2])
    return min(ms << SEQUENCE_BITS | min(n, MAX_SEQUENCE), MAX_POSITION)


def parse_since(text: str) -> int:
    """Return the position after which ``since`` begins: an id (after it), a unix ms (from it on), or ``earliest``.

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
    """Return a valid channel name as a plain str. reserved_ok: accept the service's own names, which begin with ``_``.

    Raises `InvalidEvent` for the field ``channel``.
    """
    if isinstance(name, str):
        if CHANNEL_PATTERN.fullmatch(name) or (reserved_ok and RESERVED_CHANNEL_PATTERN.fullmatch(name)):
            return str.__str__(name)
        if name.startswith("_") and not reserved_ok:
            raise InvalidEvent("channel", "a name that begins with _ is reserved")
    raise InvalidEvent("channel", "must be 1 to 128 of A-Z a-z 0-9 . _ : - and begin with a letter or digit")


def check_text(field: str, value: object) -> str:
    """Return `value` as a plain str. UTF-8 must be able to encode it: a stream has no other encoding (§9.2.5)."""
    if not isinstance(value, str):
        raise InvalidEvent(field, f"must be str, not {type(value).__name__}")
    if type(value) is not str:
        value = str.__str__(value)  # its characters only: a (str, Enum) formats itself as "Kind.NAME"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidEvent(field, f"character {error.start} is a lone surrogate, not UTF-8") from None
    return value


def check_line(field: str, value: object) -> str:
    """Return `value` as text for one line. No NUL: clients ignore an id with one (§9.2.6), and C ends a text there."""
    text = check_text(field, value)
    if "\n" in text or "\r" in text or "\0" in text:
        raise InvalidEvent(field, "must not contain CR, LF or NUL")
    return text


def check_type(value: object) -> str:
    """Return `value` as an event type. An empty one would arrive as "message" (§9.2.6, dispatching)."""
    text = check_line("event", value)
    if not 0 < len(text) <= MAX_TYPE_CHARS:
        raise InvalidEvent("event", f"must be 1 to {MAX_TYPE_CHARS} characters")
    return text


def check_free_type(value: object) -> str:
    """Return `value` as an event type that publishers may use."""
    text = check_type(value)
    if text in CONTROL_EVENTS:
        raise InvalidEvent("event", f"{text} is reserved for the service's own control events")
    return text


def check_retry(value: object) -> int:
    """Return `value` as a reconnection time in milliseconds."""
    # Exactly int: True would be written as "True", and §9.2.6 takes ASCII digits only.
    if type(value) is not int or not 0 <= value <= MAX_RETRY_MS:
        raise InvalidEvent("retry", f"must be an integer from 0 to {MAX_RETRY_MS} (milliseconds)")
    return value


@dataclass(frozen=True, slots=True)
class Event:
    """What a publisher hands over. Its constructor checks it, so no later code checks again.

    channel: see `CHANNEL_PATTERN`; data: any text, with NUL and line ends (clients see CR and CRLF as LF); event: the
    type, None for "message"; retry: the client's reconnection time in milliseconds.
    Raises `InvalidEvent`, whose `field` is one of these four.
    """

    channel: str
    data: str
    event: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        # The checks turn a subclass of str into a plain str, which is stored back.
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
