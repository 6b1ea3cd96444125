"""The chunked transfer coding, for a body of unknown length (RFC 9112 section 7.1)."""

from __future__ import annotations

from typing import Final

# A chunk of length 0, without trailers, ends the body.
LAST_CHUNK: Final = b"0\r\n\r\n"


def encode_chunk(data: bytes) -> bytes:
    """Return these bytes as one chunk. They must not be empty: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
