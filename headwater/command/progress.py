"""How far a long piece of work is: one line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

_EVERY: Final = 0.2  # seconds between two updates


class Progress:
    """Shows the line while its ``with`` block runs, on standard error. what: is being done."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._due = 0.0

    def step(self, name: str) -> None:
        """Say what is done now."""
        if self._shown and (now := time.monotonic()) >= self._due:
            self._due = now + _EVERY
            self._write(f"{self._what}: {name}")

    def update(self, count: int, share: float | None = None, unit: str = "events") -> None:
        """Say how many are done, and of all what share, 0 to 1 (None: unknown)."""
        if not self._shown or (now := time.monotonic()) < self._due:
            return
        self._due = now + _EVERY
        percent = "" if share is None else f", {min(share, 1):.0%}"
        self._write(f"{self._what}: {count:,} {unit}{percent}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._due:
            self._write("")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")  # to the line's beginning, and clear it
        sys.stderr.flush()
