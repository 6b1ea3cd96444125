"""Reads an archive into a log in the making (``tools.Loader``), in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ..events.markers import is_end, is_erasure
from ..events.model import MAX_POSITION, Record
from .archive import BadArchive, Closed, End, Erased, Head, Note, Reader
from .tools import Loader, Marks

_BATCH_RECORDS: Final = 1000
_BATCH_CHARS: Final = 1024 * 1024


class Loaded(NamedTuple):
    """What an archive held.

    receipt: tells this archive from any other; below 2**56.
    """

    records: int
    through: int
    marks: Marks
    notes: list[Note]
    receipt: int


def load(reader: Reader, loader: Loader | None, progress: Callable[[int], object] = lambda count: None) -> Loaded:
    """Add all that an archive has to a new log; the caller finishes that.

    loader: None to read the archive only.
    progress: called with the number of records so far.

    Raises ``BadArchive``, also if the archive has no end; ``LogUnavailable``.
    """
    batch = _Batch(loader)
    began = gone = lost = 0
    notes: dict[tuple[str, str], Note] = {}
    first = True
    for item in reader.items():
        match item:
            case Record():
                batch.add(item)
                progress(batch.count)
            case Head():
                gone = max(gone, item.gone, item.since if first else 0)
                began, lost = (item.began if first else began), max(lost, item.lost)
                first = False
            case End():
                gone, lost = max(gone, item.gone), max(lost, item.lost)
            case Closed():
                batch.close(item.channel, item.position)
            case Erased():
                batch.erase(item.channel, MAX_POSITION)
            case Note():
                notes[item.kind, item.name] = item
    if not reader.whole:
        raise BadArchive("the export has no end: it was interrupted, or cut off")
    batch.flush()
    return Loaded(batch.count, reader.position, Marks(began, gone, lost), list(notes.values()), reader.receipt)


class _Batch:
    """Records and closings that wait to be added.

    count: of all records so far, without those that an overlapping part repeats.
    """

    def __init__(self, loader: Loader | None) -> None:
        self._loader = loader
        self._records: list[Record] = []
        self._closed: dict[str, int] = {}
        self._chars = 0
        self._through = 0
        self.count = 0

    def add(self, record: Record) -> None:
        if record.position <= self._through:
            return
        self._through = record.position
        self.count += 1
        if is_erasure(record):
            self.erase(record.channel, record.position)
        self._records.append(record)
        self._chars += len(record.data)
        if is_end(record):
            self._closed[record.channel] = record.position
        if len(self._records) >= _BATCH_RECORDS or self._chars >= _BATCH_CHARS:
            self.flush()

    def close(self, channel: str, position: int) -> None:
        self._closed[channel] = position
        if len(self._closed) >= _BATCH_RECORDS:
            self.flush()

    def erase(self, channel: str, below: int) -> None:
        self.flush()
        if self._loader is not None:
            self._loader.erase(channel, below)

    def flush(self) -> None:
        if self._loader is not None:
            if self._records:
                self._loader.add(self._records)
            if self._closed:
                self._loader.close_channels(self._closed)
        self._records, self._closed, self._chars = [], {}, 0
