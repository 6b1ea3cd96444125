"""What the memory engine knows of each channel: its records, whether it is closed, and what was trimmed of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ..events.markers import is_marker
from ..events.model import Record
from ..events.patterns import is_reserved, split
from .base import GONE_MOST, GONE_SECONDS, TRIM_BITE, ChannelInfo, RetainRule
from .rules import NO_RULE, Rules, expired, settled

_LAST_CHARACTER: Final = "\U0010ffff"


class _Channel:
    """events, bytes: without markers. gone: the highest position trimmed, 0 for none. rule: its number."""

    __slots__ = ("bytes", "events", "gone", "records", "rule")

    def __init__(self, rule: int) -> None:
        self.records: deque[Record] = deque()
        self.events = self.bytes = self.gone = 0
        self.rule = rule

    def add(self, record: Record) -> None:
        self.records.append(record)
        self._count(record, 1)

    def take(self) -> Record:
        """Remove the oldest record."""
        record = self.records.popleft()
        self._count(record, -1)
        return record

    def _count(self, record: Record, step: int) -> None:
        if not is_marker(record.event):
            self.events += step
            self.bytes += step * len(record.data.encode())


class Channels:
    """All channels that have records, are closed, or had something trimmed.

    ended: the closed ones, with their closing positions.
    ruled: those that a rule is for.
    """

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}
        self.ruled: dict[str, _Channel] = {}
        self._rules = Rules()
        self._channels: dict[str, _Channel] = {}
        self._names: list[str] = []  # sorted
        self._empty: dict[str, None] = {}  # nothing left of them but what was trimmed; first those that emptied first
        self._forgotten = 0  # the highest position trimmed of a channel that was forgotten

    def add(self, record: Record) -> None:
        name = record.channel
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel(self._rules.find(name))
            insort(self._names, name)
            if channel.rule != NO_RULE:
                self.ruled[name] = channel
        if not channel.records:
            self._empty.pop(name, None)
        channel.add(record)

    def under_rules(self) -> int:
        """Return how many records the channels hold that a rule is for."""
        return sum([len(channel.records) for channel in self.ruled.values()])

    def erase(self, name: str) -> tuple[list[Record], int]:
        """Remove a channel's records, and open it; return them, and how many were events."""
        self.ended.pop(name, None)
        channel = self._channels.get(name)
        if channel is None:
            return [], 0
        records, events = list(channel.records), channel.events
        channel.records.clear()
        channel.events = channel.bytes = 0
        return records, events

    def trim(self, due: Iterable[Record]) -> None:
        """Remove these records, each channel's oldest first."""
        for record in due:
            channel = self._channels[record.channel]
            channel.gone = channel.take().position
            if not channel.records:
                self._empty[record.channel] = None

    def gone(self, channels: Collection[str]) -> int:
        """Return the highest position trimmed of these channels, or of forgotten ones; 0 for none."""
        names, prefixes = split(channels)
        found = [self._channels[name].gone for name in names if name in self._channels]
        for prefix in prefixes:
            begin, end = self._range(prefix)
            found += [self._channels[name].gone for name in self._names[begin:end] if not is_reserved(name)]
        return max([self._forgotten, *found])

    def page(self, prefix: str, after: str, limit: int) -> list[ChannelInfo]:
        """See ``Log.channels``."""
        begin, end = self._range(prefix)
        page: list[ChannelInfo] = []
        for name in self._names[max(begin, bisect_right(self._names, after)) : end]:
            if len(page) >= limit:
                break
            channel = self._channels[name]
            if is_reserved(name) or not (channel.events or name in self.ended):
                continue
            events = (record.position for record in channel.records if not is_marker(record.event))
            newest = (record.position for record in reversed(channel.records) if not is_marker(record.event))
            oldest, latest = next(events, None), next(newest, None)
            page.append(ChannelInfo(name, channel.events, channel.bytes, oldest, latest, name in self.ended))
        return page

    def _range(self, prefix: str) -> tuple[int, int]:
        """Return where in the names those with this prefix begin and end."""
        return bisect_left(self._names, prefix), bisect_right(self._names, prefix + _LAST_CHARACTER)

    # ── retention ───────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, rules: Sequence[RetainRule]) -> None:
        """Trim by these rules from now on."""
        self._rules = Rules(rules)
        for name, channel in self._channels.items():
            channel.rule = self._rules.find(name)
        self.ruled = {name: channel for name, channel in self._channels.items() if channel.rule != NO_RULE}

    def due(self, now: int) -> list[Record]:
        """Find what rules no longer keep: at most a bite of records, each channel's oldest first. now: unix ms."""
        due: list[Record] = []
        young = settled(now)
        limits = [(expired(now, rule.seconds), rule.events) for rule in self._rules.rules]
        for name, channel in self.ruled.items():
            records = channel.records
            before, most = limits[channel.rule]
            surplus = 0 if most is None else len(records) - (name in self.ended) - most
            if surplus <= 0 and (not records or records[0].position >= before):
                continue
            for n, record in enumerate(records):
                if len(due) == TRIM_BITE:
                    return due
                if record.position >= before and (n >= surplus or record.position >= young):
                    break
                due.append(record)
        return due

    def forget(self, now: int) -> None:
        """Forget what was trimmed long ago of channels that have nothing left, and of too many."""
        for name in list(self._empty):
            channel = self._channels[name]
            if len(self._empty) <= GONE_MOST and channel.gone >= expired(now, GONE_SECONDS):
                break
            self._forgotten = max(self._forgotten, channel.gone)
            del self._empty[name]
            if name not in self.ended:
                del self._channels[name]
                self.ruled.pop(name, None)
                self._names.pop(bisect_left(self._names, name))
