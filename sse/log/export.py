"""Writes what a log holds as a part of an archive, while the log is in use.

**What is in it**: every record after ``since`` that was stored before the export began and is still kept when it is
read. What is trimmed meanwhile is told (``gone``), what is erased meanwhile is left out. It is read in pages, so an
export of any size takes the memory of one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

from ..events.markers import is_erasure
from ..events.model import format_id
from .archive import ERASED_UNSEEN, BadArchive, End, Head, Note, Writer
from .base import Bounds, Log, LogUnavailable

_PAGE_RECORDS: Final = 1000
_PAGE_CHARS: Final = 1024 * 1024


def export(
    log: Log,
    write: Callable[[bytes], object],
    since: int = 0,
    notes: Collection[str] = (),
    *,
    behind: bool = False,
    progress: Callable[[int, float], object] = lambda records, share: None,
) -> tuple[int, End]:
    """Write a part; return the number of its records, and its end.

    since: a position.
    behind: this part follows others.
    notes: kinds of notes to write.
    progress: called with the number of records so far, and the share of the time they span, 0 to 1.

    Raises ``LogUnavailable``, also if the log was replaced meanwhile; ``BadArchive`` if a part cannot follow others.
    """
    writer, before = Writer(write), log.bounds()
    if since > before.latest:
        raise LogUnavailable(f"the log ends at {format_id(before.latest)}, before {format_id(since)}")
    whole = before.trimmed in (before.began, 0) or before.trimmed <= since
    head = Head(since, before.began, 0 if whole else before.trimmed, before.lost, before.erased)
    if behind and head.gone > since and head.erased > since:
        raise BadArchive(ERASED_UNSEEN.format(format_id(since)))
    writer.head(head)
    through, position, count, gone = before.latest, since, 0, 0
    first = before.oldest or since
    while position < through:
        page = log.read(None, position, _PAGE_RECORDS, _PAGE_CHARS)
        after = log.bounds()
        _check_same(before, after)
        if after.trimmed > max(position, before.trimmed):
            gone = after.trimmed
        page = [record for record in page if record.position <= through]
        if not page:
            break
        writer.records(page)
        count += len(page)
        position = page[-1].position
        progress(count, (position - first) / max(through - first, 1))
    for channel in _erased_since(log, through):
        writer.erased(channel)
    for closed in _closed(log):
        writer.closed({channel: at for channel, at in closed.items() if at <= through})
    for kind in notes:
        for name, value in log.notes(kind).items():
            writer.note(Note(kind, name, value))
    after = log.bounds()
    _check_same(before, after)
    if after.trimmed > through and after.erased > max(through, before.erased):
        raise LogUnavailable("a channel was erased meanwhile, and the mark of that was trimmed: export it again")
    end = End(through, gone, after.lost)
    writer.end(end)
    return count, end


def _check_same(before: Bounds, now: Bounds) -> None:
    if now.latest < before.latest or now.began != before.began:
        raise LogUnavailable("the log was replaced by another one meanwhile")


def _erased_since(log: Log, position: int) -> set[str]:
    """Return the channels that were erased after this position."""
    until = log.bounds().latest
    erased: set[str] = set()
    while position < until and (page := log.read(None, position, _PAGE_RECORDS, _PAGE_CHARS)):
        position = page[-1].position
        erased.update(record.channel for record in page if is_erasure(record))
    return erased


def _closed(log: Log) -> Iterator[dict[str, int]]:
    """Yield all closed channels with their closing positions, some at a time."""
    name = ""
    while page := log.channels("", name):
        name = page[-1].channel
        yield log.closed([info.channel for info in page if info.closed])
