"""The form of an export: lines of JSON that hold a log, or the end of one. Pure.

An archive has one or more *parts*, each written by one export. A part begins with a head, has the records in the order
of their ids, then what is not in the records, and an end:

    {"headwater":"log","format":1,"since":"0-0","began":"1763…-0","gone":"0-0","lost":"0-0","erased":"0-0"}
    {"id":"1763…-0","channel":"orders","event":"created","retry":3000,"data":"…"}
    {"closed":"orders","id":"1763…-7"}
    {"erased":"carts"}
    {"note":"revoked","name":"alice","value":"1763…"}
    {"end":"1763…-9","gone":"0-0","lost":"0-0","records":1,"sha256":"…"}

since       the part has what follows this id; that of the next part is the last id of the part before it
began, lost, erased
            as in ``Bounds``
gone        records up to this id, behind ``since``, were trimmed before they could be written; 0-0 for none
closed      a channel that is closed, and its closing position (its marker may have been trimmed)
erased      a channel that was erased while this part was written: its records up to the end are to be left out
note        of ``Log.notes``
end         the part is whole up to this id
sha256      of the part's bytes, from its head to the line before its end

A part without an end was interrupted, perhaps in the middle of a line. The next part may follow on that line: its first
characters cannot stand inside one, as JSON escapes quotes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring
from typing import IO, Any, Final, NamedTuple, TypeAlias

from ..events.model import (
    MalformedCursor,
    Record,
    check_channel,
    check_retry,
    check_text,
    check_type,
    format_id,
    parse_id,
)
from .base import LogError

FORMAT: Final = 1

# Threat: a file whose first line never ends. The largest event may have 16 MiB of data, of which JSON makes six times
# as much at worst, besides its other fields.
MOST_LINE_BYTES: Final = 6 * 16 * 1024 * 1024 + 65_536

#: Why a part cannot follow others, which may hold what was erased since.
ERASED_UNSEEN: Final = (
    "channels were erased after {}, and it is unknown which: events after it were trimmed before they were exported, so"
    " what was exported until then cannot be used any more"
)

_BEGIN: Final = b'{"headwater":"log",'
_SQLITE: Final = b"SQLite format 3\0"


class BadArchive(LogError):
    """What was to be read is no archive, or is damaged; the message says where."""


class Torn(BadArchive):
    """The archive ends in the middle of a line: whatever wrote it was interrupted."""


class Head(NamedTuple):
    """The beginning of a part."""

    since: int
    began: int
    gone: int
    lost: int
    erased: int


class Closed(NamedTuple):
    channel: str
    position: int


class Erased(NamedTuple):
    channel: str


class Note(NamedTuple):
    kind: str
    name: str
    value: str


class End(NamedTuple):
    """The end of a part."""

    through: int
    gone: int
    lost: int


Item: TypeAlias = Head | Record | Closed | Erased | Note | End


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────


def record_line(record: Record) -> str:
    """Write a record: ``id``, ``channel``, ``data``, and ``event`` and ``retry`` if it has them."""
    position, channel, event, retry, data = record
    kind = "" if event is None else f',"event":{encode_basestring(event)}'
    delay = "" if retry is None else f',"retry":{retry}'
    # The names of channels have no character that JSON would escape.
    return f'{{"id":"{format_id(position)}","channel":"{channel}"{kind}{delay},"data":{encode_basestring(data)}}}'


class Writer:
    """Writes parts. write: takes bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._digest = hashlib.sha256()
        self._records = 0

    def head(self, head: Head) -> None:
        self._digest, self._records = hashlib.sha256(), 0
        fields = {name: format_id(position) for name, position in head._asdict().items()}
        self._line({"headwater": "log", "format": FORMAT, **fields})

    def records(self, records: list[Record]) -> None:
        self._records += len(records)
        self._bytes("".join([f"{record_line(record)}\n" for record in records]).encode())

    def closed(self, closed: Mapping[str, int]) -> None:
        for channel, position in closed.items():
            self._line({"closed": channel, "id": format_id(position)})

    def erased(self, channel: str) -> None:
        self._line({"erased": channel})

    def note(self, note: Note) -> None:
        self._line({"note": note.kind, "name": note.name, "value": note.value})

    def end(self, end: End) -> None:
        positions = {"end": end.through, "gone": end.gone, "lost": end.lost}
        fields = {name: format_id(position) for name, position in positions.items()}
        self._line({**fields, "records": self._records, "sha256": self._digest.hexdigest()})

    def _line(self, fields: Mapping[str, object]) -> None:
        self._bytes(f"{json.dumps(fields, ensure_ascii=False, separators=(',', ':'))}\n".encode())

    def _bytes(self, octets: bytes) -> None:
        self._digest.update(octets)
        self._write(octets)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────


class Reader:
    """Reads an archive.

    position: what the archive has up to here was read: the last record's, or that of the end of the last part.
    whole: True after the end of a part.
    size: bytes read, in whole lines.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._number = 0
        self._digest = hashlib.sha256()
        self._all = hashlib.sha256()
        self._records = 0
        self.position = 0
        self.whole = False
        self.size = 0

    @property
    def receipt(self) -> int:
        """Return a number below 2**56 that tells what was read so far from any other archive."""
        return int.from_bytes(self._all.digest()[:7], "big") | 1

    def items(self) -> Iterator[Item]:
        """Yield what the archive says, line by line. Raises ``BadArchive``."""
        begun = False
        while line := self._file.readline(MOST_LINE_BYTES):
            self._number += 1
            fields, begins = self._parse(line)
            self.size += len(line)
            self._all.update(line)
            line = line[begins:]
            try:
                if "headwater" in fields:
                    yield self._head(fields, first=not begun)
                    begun = True
                    self._digest.update(line)
                    continue
                if not begun:
                    raise ValueError('an export of Headwater begins with {"headwater":"log",…}')
                if self.whole:
                    raise ValueError("something follows an end that is not the beginning of another part")
                item = self._item(fields)
            except (KeyError, TypeError, ValueError, MalformedCursor) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise BadArchive(f"line {self._number}: {reason}") from None
            self._digest.update(line)
            yield item
        if not begun:
            raise BadArchive("the export is empty")

    def _parse(self, line: bytes) -> tuple[dict[str, Any], int]:
        """Return a line's fields, and where in it they begin: behind a torn line, if another part follows that."""
        begins = max(line.rfind(_BEGIN), 0)
        if self._number == 1 and line.startswith(_SQLITE):
            raise BadArchive("it is a SQLite file: restore it to a SQLite log, and export that one")
        if not line.endswith(b"\n"):
            raise Torn(f"line {self._number} ends in the middle")
        try:
            fields = json.loads(line[begins:])
            if not isinstance(fields, dict):
                raise ValueError
        except ValueError:
            raise BadArchive(f"line {self._number} is not a line of an export") from None
        return fields, begins

    def _head(self, fields: dict[str, Any], *, first: bool) -> Head:
        if fields["headwater"] != "log" or fields["format"] != FORMAT:
            raise ValueError(f"has format {fields['format']!r}; this version of Headwater reads format {FORMAT}")
        head = Head(*(_position(fields[name]) for name in Head._fields))
        if first:
            self.position = head.since
        elif head.since > self.position:
            raise ValueError(
                f"this part begins after {format_id(head.since)}, but what is before it ends at"
                f" {format_id(self.position)}: a part is missing"
            )
        elif head.gone > head.since and head.erased > head.since:
            raise ValueError(ERASED_UNSEEN.format(format_id(head.since)))
        # (A part may begin earlier, and repeat what is there.)
        self.position, self.whole = head.since, False
        self._digest, self._records = hashlib.sha256(), 0
        return head

    def _item(self, fields: dict[str, Any]) -> Item:
        if "id" in fields and "channel" in fields:
            record = _record(fields)
            if record.position <= self.position:
                raise ValueError(f"{format_id(record.position)} is not above the id before it")
            self.position = record.position
            self._records += 1
            return record
        if "end" in fields:
            end = End(*(_position(fields[name]) for name in ("end", "gone", "lost")))
            if end.through < self.position or fields["records"] != self._records:
                raise ValueError(f"the part has {self._records} records, its end says {fields['records']}")
            if fields["sha256"] != self._digest.hexdigest():
                raise ValueError("the part was damaged: its bytes do not have the SHA-256 that its end says")
            self.position, self.whole = end.through, True
            return end
        if "closed" in fields:
            return Closed(check_channel(fields["closed"], reserved_ok=True), _position(fields["id"]))
        if "erased" in fields:
            return Erased(check_channel(fields["erased"], reserved_ok=True))
        if "note" in fields:
            return Note(*(check_text(name, fields[name]) for name in ("note", "name", "value")))
        raise ValueError("is not a line of an export")


def _position(text: object) -> int:
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not an id")
    return parse_id(text)


def _record(fields: dict[str, Any]) -> Record:
    event, retry = fields.get("event"), fields.get("retry")
    return Record(
        _position(fields["id"]),
        check_channel(fields["channel"], reserved_ok=True),
        None if event is None else check_type(event),
        None if retry is None else check_retry(retry),
        check_text("data", fields["data"]),
    )
