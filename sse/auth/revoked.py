"""Subjects whose access was taken back: their tokens that were issued before that moment are refused.

The log keeps each revocation as a note for ``REVOKED_SECONDS``, so restarted workers and new pods know it, too. A
worker reads all notes once, and learns of later ones from the log's control records.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

#: The kind of the log's notes, and how long they last. A token that lives longer is accepted again afterwards.
NOTE_KIND: Final = "revoked"
REVOKED_SECONDS: Final = 24 * 3600

# Characters of a token's `sub` to keep: log lines contain it, the rate limiter stores it as a key, and so does the log.
MAX_SUBJECT_CHARS: Final = 128


def subject_name(sub: str) -> str:
    """Return the name by which a subject's streams and revocation are found: itself, or its digest if it is unwieldy.

    A token may name anything as its ``sub``: a name of megabytes, or one with line ends.
    """
    if len(sub) <= MAX_SUBJECT_CHARS and sub.isprintable():
        return sub
    return f"sha256:{hashlib.sha256(sub.encode(errors='surrogatepass')).hexdigest()}"


class Revoked:
    """The revoked subjects that this process knows, by their :func:`subject_name`. Thread-safe.

    read: returns all notes, by name; each is the moment in Unix milliseconds. Called until it succeeds for the first
    time. While it raises, no token with a subject is accepted: its error is passed on.
    clock: returns Unix seconds.
    """

    def __init__(self, read: Callable[[], Mapping[str, str]], clock: Callable[[], float] = time.time) -> None:
        self._read = read
        self._clock = clock
        self._at: dict[str, int] = {}
        self._lock = threading.Lock()
        self._loaded = False

    def __len__(self) -> int:
        return len(self._at)

    def take(self, notes: Mapping[str, str]) -> None:
        """Add what all notes say: again, when the worker may have missed control records."""
        self._add({name: int(value) for name, value in notes.items() if value.isdecimal()})
        self._loaded = True

    def add(self, name: str, at: int) -> None:
        """Refuse this subject's tokens that were issued before ``at``, Unix milliseconds."""
        self._add({name: at})

    def _add(self, new: Mapping[str, int]) -> None:
        with self._lock:
            latest = {name: max(at, self._at.get(name, 0)) for name, at in new.items()}
            over = (self._clock() - REVOKED_SECONDS) * 1000
            # A new dict, because other threads look into the present one.
            self._at = {name: at for name, at in {**self._at, **latest}.items() if at > over}

    def hear(self, record: Mapping[str, Any]) -> None:
        """Take a control record, which another worker has written into the log."""
        name, at = record.get("subject"), record.get("at")
        if isinstance(name, str) and isinstance(at, int):
            self.add(name, at)

    def refuses(self, sub: str, issued_at: float | None) -> bool:
        """Tell whether to refuse a token of this subject.

        issued_at: the token's ``iat``, Unix seconds. It has no fraction as a rule, so a token that was issued in the
        second of the revocation is refused. A token without ``iat`` is refused, too.
        Raises what ``read`` raises.
        """
        if not self._loaded:
            self.take(self._read())
        if not self._at:
            return False
        at = self._at.get(subject_name(sub))
        if at is None or at <= (self._clock() - REVOKED_SECONDS) * 1000:
            return False
        return issued_at is None or issued_at * 1000 < at
