"""The static publish key: one secret that may publish to every channel.

Compared in constant time by construction: what is kept, and what is compared, are SHA-256 digests, of equal
length whatever was sent; `hmac.compare_digest` compares them; and every key is compared, whether or not an
earlier one matched. So the time says nothing about the length, the beginning, or the place of a key. The key
itself is not kept.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

from .bearer import B64TOKEN

# 64 bits if it is written in hex: out of reach for guessing over a network.
MIN_KEY_CHARS: Final = 16


def digest(key: str) -> bytes:
    """SHA-256 of a key. No salt or stretching: it never leaves the process, and keys are not passwords."""
    return hashlib.sha256(key.encode()).digest()


def matches(presented: str, digests: Iterable[bytes]) -> bool:
    """True if `presented` is one of the keys, given by their digests."""
    presented_digest = digest(presented)
    matched = False
    for known in digests:
        matched |= hmac.compare_digest(presented_digest, known)
    return matched


def parse_publish_keys(content: bytes) -> Sequence[bytes]:
    """Digests of the keys in a file, one key a line; blank lines are skipped.

    Two lines are how a key is changed without a moment in which either side is refused: add the new one, move
    the publishers, take the old one out. Raises ValueError for an empty file and for a line that is no key.
    """
    lines = [line.strip() for line in content.decode("ascii", errors="replace").splitlines()]
    keys = [check_publish_key(line) for line in lines if line]
    if not keys:
        raise ValueError("there is no key in it")
    return [digest(key) for key in keys]


def check_publish_key(key: str) -> str:
    """The key, if it can be sent as a bearer credential. Raises ValueError, which does not show it,
    otherwise.

    A key with other characters could be configured but never match: a header would arrive in another
    encoding.
    """
    if len(key) < MIN_KEY_CHARS:
        raise ValueError(f"a key has at least {MIN_KEY_CHARS} characters: a shorter one could be guessed")
    if not B64TOKEN.fullmatch(key):
        raise ValueError("a key consists of letters, digits and -._~+/, with '=' at its end (RFC 6750 §2.1)")
    return key
