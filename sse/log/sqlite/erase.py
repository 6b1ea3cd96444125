"""Erasing a channel of a SQLite log."""

from __future__ import annotations

import time
from typing import Final

from ...events.markers import erased_marker
from ...events.model import Record, make_position
from ..base import Erased
from . import channels
from .file import connect, patiently
from .schema import LATEST
from .write import insert

_LAST: Final = f"SELECT {LATEST}"


class Eraser:
    """Erases one channel. mark: all positions are above it (``place``). Raises ``sqlite3.Error``."""

    def __init__(self, path: str, mark: int) -> None:
        self._mark = mark
        self._database = connect(path, synchronous="NORMAL", wal_autocheckpoint=0, secure_delete=1)

    def remove(self, channel: str) -> Erased:
        """Remove the channel's records, and put the marker in their place, in one transaction."""
        database = self._database
        patiently(database.execute, "BEGIN IMMEDIATE")
        (last,) = database.execute(_LAST).fetchone()
        events = channels.erase(database, channel)
        position = max(make_position(time.time_ns() // 1_000_000), max(last, self._mark) + 1)
        marker = erased_marker(channel, position)
        insert(database, [Record(position, channel, marker.event, None, marker.data)])
        database.execute("COMMIT")
        return Erased(events, position)

    def let_go(self) -> None:
        patiently(self._database.execute, "PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._database.close()
