"""The one error of the doctor: what it was given cannot be examined."""

from __future__ import annotations


class CannotRun(Exception):
    """The input cannot be examined. Its text is the one line that the user reads; the exit status is 2."""
