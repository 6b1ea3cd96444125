"""Finds the values that are filed under selectors which match a channel: names, and patterns by their prefixes.

A lookup costs one dict access for the name, and one for each *length* that the prefixes have. So publishing to a
channel costs the same however many patterns are open, and at most 129 accesses whatever lengths clients choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

from ..events.patterns import is_pattern, is_reserved

T = TypeVar("T")


class Index(Generic[T]):
    """Values by selector. Each value is in it once for each of its selectors."""

    __slots__ = ("_by_name", "_by_prefix", "_lengths", "_prefixes")

    def __init__(self) -> None:
        self._by_name: dict[str, dict[T, None]] = {}
        self._by_prefix: dict[str, dict[T, None]] = {}
        self._prefixes: Counter[int] = Counter()  # how many prefixes have each length
        self._lengths: tuple[int, ...] = ()  # those that occur

    def add(self, value: T, selectors: Iterable[str]) -> None:
        """File a value under its selectors, of which at most one may match any channel (``patterns.reduced``)."""
        for selector in selectors:
            if not is_pattern(selector):
                self._by_name.setdefault(selector, {})[value] = None
                continue
            prefix = selector[:-1]
            values = self._by_prefix.get(prefix)
            if values is None:
                values = self._by_prefix[prefix] = {}
                self._count(len(prefix), 1)
            values[value] = None

    def remove(self, value: T, selectors: Iterable[str]) -> None:
        """Take back :meth:`add`."""
        for selector in selectors:
            if not is_pattern(selector):
                values = self._by_name[selector]
                del values[value]
                if not values:
                    del self._by_name[selector]
                continue
            prefix = selector[:-1]
            values = self._by_prefix[prefix]
            del values[value]
            if not values:
                del self._by_prefix[prefix]
                self._count(len(prefix), -1)

    def _count(self, length: int, step: int) -> None:
        self._prefixes[length] += step
        if self._prefixes[length] in (0, step):  # none is left, or this is the first
            self._lengths = tuple(sorted(+self._prefixes))

    def named(self, channel: str) -> Collection[T]:
        """Return the values filed under this very name."""
        return self._by_name.get(channel, ())

    def among(self, channels: Collection[str]) -> dict[str, Collection[T]]:
        """Return the channels that some selector matches, with the values of each."""
        if len(channels) == 1:
            (channel,) = channels
            values = self.of(channel)
            return {channel: values} if values else {}
        if not self._lengths:
            return {channel: self._by_name[channel] for channel in self._by_name.keys() & channels}
        return {channel: values for channel in channels if (values := self.of(channel))}

    def of(self, channel: str) -> Collection[T]:
        """Return the values whose selectors match a channel."""
        named = self._by_name.get(channel, ())
        if not self._lengths or is_reserved(channel):
            return named
        found: list[T] = []
        for length in self._lengths:
            if length > len(channel):
                break
            if (matching := self._by_prefix.get(channel[:length])) is not None:
                found += matching
        if not found:
            return named
        return [*named, *found] if named else found
