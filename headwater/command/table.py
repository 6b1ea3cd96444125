"""Tables for people: columns that fit, times in UTC, and no character that could steer a terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import click

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def when(position: int | None) -> str:
    """Write the time of an event, ``-`` for none."""
    from ..sse.events.model import SEQUENCE_BITS

    if position is None:
        return "-"
    try:
        moment = datetime.fromtimestamp((position >> SEQUENCE_BITS) // 1000, UTC)
    except (ValueError, OverflowError, OSError):  # an id that a foreign writer made up
        return "?"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def one_line(text: str) -> str:
    """Write control characters as escapes.

    Threat: an event's data with a terminal's escape sequences, which whoever may publish can store.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Table:
    """Prints rows, a page at a time; columns only get wider from page to page.

    aligned: for each column, ``str.ljust`` or ``str.rjust``. On a terminal, lines are cut at its edge.
    """

    def __init__(self, head: Sequence[str], aligned: Sequence[Callable[[str, int], str]]) -> None:
        self._head: Sequence[str] | None = head
        self._aligned = aligned
        self._widths = [len(name) for name in head]
        self._most = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        page = [*([] if self._head is None else [self._head]), *rows]
        self._head = None
        for row in page:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        for row in page:
            cells = zip(self._aligned, row, self._widths, strict=True)
            line = "  ".join(align(cell, width) for align, cell, width in cells)
            click.echo(line.rstrip()[: self._most])
