"""The doctor's one error: it cannot examine its input."""

from __future__ import annotations


class CannotRun(Exception):
    """The input cannot be examined. The text is the one line that the user reads; the exit status is 2."""
