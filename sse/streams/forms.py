"""The forms in which streams are written: as the events are, in envelopes, and plain.

A subscription has one form, which its group holds, so all streams of a group are sent the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from ..events import plain, wire
from ..events.markers import MARKERS
from ..events.wire import Frame, ResetReason

# Envelopes that were made last are kept for other groups and for streams that catch up.
ENVELOPES_BYTES: Final = 4 * 1024 * 1024


_type = itemgetter(2)  # a frame's


class Envelopes:
    """Makes each frame's envelope once, and only when a stream asks for it. At the limit, all are forgotten."""

    def __init__(self) -> None:
        self._made: dict[int, bytes] = {}  # by position
        self._size = 0

    def of(self, frame: Frame) -> bytes:
        made = self._made  # not the one after an erasure, during which a thread may be here
        envelope = made.get(frame.position)
        if envelope is None:
            if self._size > ENVELOPES_BYTES:
                self.forget()
                made = self._made
            envelope = made[frame.position] = frame.envelope()
            self._size += len(envelope)
        return envelope

    def forget(self) -> None:
        """Forget all: events were erased, or positions mean other events now."""
        self._made, self._size = {}, 0


def count_events(frames: Sequence[Frame]) -> int:
    """Return how many of these frames are events, not markers."""
    return len(frames) - sum(map(MARKERS.__contains__, map(_type, frames)))


class Form:
    """How a subscription's streams are written: events as they were published, and our own blocks beside them."""

    __slots__ = ()

    def wires(self, frames: Sequence[Frame]) -> list[bytes]:
        """Return each frame's bytes."""
        return [frame.wire for frame in frames]

    def opening(self, position: int | None, retry_ms: int, now_ms: int) -> bytes:
        return wire.opening_block(position, retry_ms, now_ms)

    def sent_away(self, position: int | None, retry_ms: int, now_ms: int) -> bytes:
        """Return all that a client gets which is sent away for now."""
        return self.opening(position, retry_ms, now_ms)

    def heartbeat(self, position: int, now_ms: int) -> bytes:
        return wire.heartbeat_block(position, now_ms)

    def reset(self, reason: ResetReason, requested: str, oldest: int | None, latest: int, position: int) -> bytes:
        return wire.reset_block(reason, requested, oldest, latest, position)

    def retry(self, retry_ms: int) -> bytes:
        return wire.retry_block(retry_ms)


class EnvelopeForm(Form):
    """``?envelope=1``: each event says which channel it is from. Markers do so anyway."""

    __slots__ = ("_envelopes",)

    def __init__(self, envelopes: Envelopes) -> None:
        self._envelopes = envelopes

    def wires(self, frames: Sequence[Frame]) -> list[bytes]:
        of = self._envelopes.of
        return [frame.wire if frame.event in MARKERS else of(frame) for frame in frames]


class PlainForm(Form):
    """``?plain=1``: nothing but what was published; what the service itself says is a comment (`sse.events.plain`).

    within: the form of the events.
    """

    __slots__ = ("_within",)

    def __init__(self, within: Form) -> None:
        self._within = within

    def wires(self, frames: Sequence[Frame]) -> list[bytes]:
        made = self._within.wires(frames)
        for index, frame in enumerate(frames):
            if frame.event in MARKERS:
                made[index] = plain.marker_block(frame)
        return made

    def opening(self, position: int | None, retry_ms: int, now_ms: int) -> bytes:
        return plain.opening_block(position, retry_ms, now_ms)

    def sent_away(self, position: int | None, retry_ms: int, now_ms: int) -> bytes:
        return self.opening(position, retry_ms, now_ms) + self.retry(retry_ms)

    def heartbeat(self, position: int, now_ms: int) -> bytes:
        return plain.heartbeat_block(position, now_ms)

    def reset(self, reason: ResetReason, requested: str, oldest: int | None, latest: int, position: int) -> bytes:
        return plain.reset_block(reason, requested, oldest, latest, position)

    def retry(self, retry_ms: int) -> bytes:
        return plain.retry_block(retry_ms)


USUAL: Final = Form()


class Forms:
    """One worker's forms."""

    def __init__(self) -> None:
        self.envelopes = Envelopes()
        in_envelopes = EnvelopeForm(self.envelopes)
        self._forms: dict[tuple[bool, bool], Form] = {
            (False, False): USUAL,
            (True, False): in_envelopes,
            (False, True): PlainForm(USUAL),
            (True, True): PlainForm(in_envelopes),
        }

    def of(self, envelope: bool, plain: bool) -> Form:
        return self._forms[envelope, plain]
