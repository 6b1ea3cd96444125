"""Says whether a Redis log is sound: the stream, the indexes of its channels, the book, and the closed channels.

The log may be in use, and Redis serves others between two pages: so what is read is not of one moment. Each page is
compared by a script, at one moment; what spans several pages counts only if the book says the same of the channel
before and after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from ...events.markers import is_end
from ..tools import Report
from .channels import COUNT_BYTES, COUNT_RECORDS
from .client import Client
from .codec import decode, position_of
from .scripts import BOUNDS, COUNT, ENTRIES, MEMBERS

_PAGE: Final = 500
_EXAMPLES: Final = 5  # what is wrong is told so many times, of each kind
_TRIES: Final = 5  # for a channel that changes meanwhile


def verify(client: Client, step: Callable[[str], object]) -> Report:
    """Check the log. step: told what is looked at. Raises ``LogUnavailable``."""
    check = _Check(client, step)
    check.marks()
    check.entries()
    check.channels()
    check.ends()
    where = f"Redis {client.target.where}, {client.keys.meta.removesuffix(':meta')}"
    name = f"{where}: {check.records:,} records in {check.filled:,} channels"
    return Report(name, check.problems, check.remarks)


class _Check:
    """records, filled: how many records, and channels that have any."""

    def __init__(self, client: Client, step: Callable[[str], object]) -> None:
        self._client = client
        self._step = step
        self._told: dict[str, int] = {}
        self.records = self.filled = 0
        self.problems: list[str] = []
        self.remarks: list[str] = []

    def _problem(self, kind: str, text: str) -> None:
        self._told[kind] = self._told.get(kind, 0) + 1
        if self._told[kind] <= _EXAMPLES:
            self.problems.append(text)
        elif self._told[kind] == _EXAMPLES + 1:
            self.problems.append(f"and more of the kind: {kind}")

    def marks(self) -> None:
        self._step("marks")
        _, latest, trimmed, _, _, _, _, erased = self._client.run(BOUNDS, [])
        self._latest = position_of(latest)
        for name, mark in (("trimmed", trimmed), ("erase", erased)):
            if position_of(mark) > self._latest:
                self._problem("marks", f"the mark {name} is {mark.decode()}, beyond the newest id {latest.decode()}")
        number, closed = self._client.pipeline(
            ("HGET", self._client.keys.meta, "closed"), ("HLEN", self._client.keys.closed)
        )
        if int(number or 0) == 0 and closed:
            self._problem("marks", f"{closed:,} channels are closed, but publishers are not told so")

    def entries(self) -> None:
        """Is every entry of the stream in its channel's index?"""
        self._step("counting")
        while not self._client.run(COUNT, [COUNT_RECORDS, COUNT_BYTES])[0]:
            time.sleep(0.001)
        after, foreign = b"0-0", 0
        while True:
            self._step(f"the stream, {self.records:,} records")
            count, after, others, *missing = self._client.run(ENTRIES, [after, _PAGE])
            self.records += count - others
            foreign += others
            for id, channel in zip(missing[::2], missing[1::2], strict=True):
                self._problem("missing from an index", f"the index of {channel.decode()} lacks {id.decode()}")
            if count < _PAGE or position_of(after) >= self._latest:
                break
        if foreign:
            self.remarks.append(f"{foreign:,} entries of the stream are not of this service")

    def channels(self) -> None:
        """Does the index of every channel lead to its entries, and does the book say how many there are?"""
        for page in self._pages():
            self._step(f"channels, from {page[0].decode()} on")
            for name in page:
                self._channel(name)

    def _pages(self) -> Iterator[list[bytes]]:
        """Yield the names of channels that have records or are closed, some at a time."""
        begin = b"-"
        while page := self._client.one("ZRANGEBYLEX", self._client.keys.names, begin, "+", "LIMIT", 0, _PAGE):
            yield page
            begin = b"(" + page[-1]

    def _channel(self, name: bytes) -> None:
        channel = name.decode()
        for _ in range(_TRIES):
            begin, said = b"-", None
            dangling, sums, changed = 0, [0, 0, 0], False
            while True:
                count, last, lost, *counted, book = self._client.run(MEMBERS, [name, begin, _PAGE])
                changed = changed or (said is not None and book != said)
                said, dangling = book, dangling + lost
                sums = [have + more for have, more in zip(sums, counted, strict=True)]
                if count < _PAGE:
                    break
                begin = b"(" + last
            if not changed:
                break
        else:
            self.remarks.append(f"{channel} has changed too often while it was looked at")
            return
        self.filled += sums[0] > 0
        if dangling:
            self._problem("leads nowhere", f"the index of {channel} has {dangling:,} ids without an event")
        booked = [int(number) for number in said.split()] if said else [0, 0, 0]
        if booked != sums and not dangling:
            have = f"{sums[1]:,} events of {sums[2]:,} bytes"
            self._problem("counts", f"{channel} has {have}, but {booked[1]:,} of {booked[2]:,} are counted")

    def ends(self) -> None:
        """Do closed channels end with their end?"""
        self._step("ends")
        for page in self._pages():
            ids = self._client.one("HMGET", self._client.keys.closed, *page)
            newest = position_of(self._client.run(BOUNDS, [])[1])
            for name, id in zip(page, ids, strict=True):
                if id is not None:
                    self._end(name.decode(), id, newest)

    def _end(self, channel: str, id: bytes, newest: int) -> None:
        if position_of(id) > newest:
            self._problem("ends", f"{channel} is closed at {id.decode()}, beyond the newest id")
        records = decode(self._client.one("XRANGE", self._client.keys.events, id, id))
        if records and not (is_end(records[0]) and records[0].channel == channel):
            self._problem("ends", f"{channel} is closed at {id.decode()}, where there is an event")
