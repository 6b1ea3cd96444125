"""The static publish key: one secret that may publish to every channel.

The comparison takes constant time: we store and compare SHA-256 digests, which all have the same length;
``hmac.compare_digest`` compares them; and we compare every key, even after a match. So the time reveals nothing
about a key's length, prefix or position. We do not keep the key itself.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

from .bearer import B64TOKEN

# 64 bits if written in hex: too many to guess over a network.
MIN_KEY_CHARS: Final = 16


def digest(key: str) -> bytes:
    """Hash a key with SHA-256. No salt or stretching: the digest stays in the process, and keys are not passwords."""
    return hashlib.sha256(key.encode()).digest()


def matches(presented: str, digests: Iterable[bytes]) -> bool:
    """True if the digest of ``presented`` is in ``digests``."""
    presented_digest = digest(presented)
    matched = False
    for known in digests:
        matched |= hmac.compare_digest(presented_digest, known)
    return matched


def parse_publish_keys(content: bytes) -> Sequence[bytes]:
    """Return the digests of the keys in a file, one key per line; blank lines are skipped.

    To rotate a key without refusing anybody: add the new key, switch the publishers over, remove the old key.

    Raises ValueError for an empty file or an invalid key.
    """
    lines = [line.strip() for line in content.decode("ascii", errors="replace").splitlines()]
    keys = [check_publish_key(line) for line in lines if line]
    if not keys:
        raise ValueError("it contains no key")
    return [digest(key) for key in keys]


def check_publish_key(key: str) -> str:
    """Return the key if it can be sent as a bearer credential.

    A key with other characters could never match, because the header arrives in another encoding.

    Raises ValueError, which does not reveal the key.
    """
    if len(key) < MIN_KEY_CHARS:
        raise ValueError(f"a key of less than {MIN_KEY_CHARS} characters could be guessed")
    if not B64TOKEN.fullmatch(key):
        raise ValueError("a key has only letters, digits and -._~+/, and = at the end (RFC 6750 §2.1)")
    return key
