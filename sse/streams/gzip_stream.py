"""A stream that is sent gzip (:mod:`sse.streams.compression`)."""

from __future__ import annotations

from typing import Any

from ..events import gzipped
from ..events.chunked import LAST_CHUNK, encode_chunk
from ..events.gzipped import Sums, shifted
from .compression import ALONE
from .stream import Stream


class GzipStream(Stream):
    """A stream whose trailer states the CRC-32 and the length of all the text that it was sent.

    While it is live, only its group counts. From both sums of the group, at the stream's joining and at its leaving,
    follow the stream's own, because a CRC is linear: with *own* before it joined,

        crc(own + sent) = shifted(own.crc ^ group.crc at joining, bytes sent) ^ group.crc at leaving

    That takes some 20 µs, so it is done when the sums are needed next, and never for a stream that is cut.
    """

    # One int instead of a tuple of three, as there are many idle streams: bits 0-31 the CRC, or its difference to the
    # group's; 32-63 the length; from 64 on the group's length at joining.
    __slots__ = ("_packed", "_until")

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.coding = ALONE
        self._packed = 0
        self._until: Sums | None = None  # the group's sums when it left, not accounted for yet

    def count_from(self, sums: Sums) -> None:
        own = self._settled()
        self._packed = (own.crc ^ sums.crc) | own.size << 32 | sums.size << 64

    def count_to(self, sums: Sums) -> None:
        if self._until is None:
            self._until = sums

    def _settled(self) -> Sums:
        """Return its sums; it is not live."""
        crc, size, since = self._packed & 0xFFFFFFFF, self._packed >> 32 & 0xFFFFFFFF, self._packed >> 64
        if self._until is not None:
            sent = self._until.size - since
            crc, size = shifted(crc, sent) ^ self._until.crc, size + sent
            self._until = None
        return self._set(Sums(crc, size))

    def _set(self, sums: Sums) -> Sums:
        sums = Sums(sums.crc, sums.size & 0xFFFFFFFF)
        self._packed = sums.crc | sums.size << 32
        return sums

    def count(self, text: bytes) -> None:
        self._set(self._settled().plus(text))

    def opening(self, text: bytes) -> bytes:
        self.count(text)
        return gzipped.HEAD + gzipped.alone(text)

    def last(self, block: bytes) -> bytes:
        self.count(block)
        return encode_chunk(gzipped.alone(block) + gzipped.end(self._settled())) + LAST_CHUNK
