"""Which retention rule is for a channel, and what the rules keep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from ..events.model import make_position
from ..events.patterns import is_pattern, is_reserved
from .base import RULE_GRACE, RetainRule

NO_RULE: Final = -1


class Rules:
    """Retention rules; the first that matches a channel is for it. Immutable."""

    def __init__(self, rules: Sequence[RetainRule] = ()) -> None:
        self.rules = tuple(rules)
        self._exact: dict[str, int] = {}
        self._prefixes: list[tuple[str, int]] = []
        for number, rule in enumerate(rules):
            if not is_pattern(rule.pattern):
                self._exact.setdefault(rule.pattern, number)
            elif not is_reserved(rule.pattern):
                self._prefixes.append((rule.pattern[:-1], number))

    def __bool__(self) -> bool:
        return bool(self.rules)

    def find(self, channel: str) -> int:
        """Return the number of the rule for this channel, ``NO_RULE`` if none is."""
        found = self._exact.get(channel, len(self.rules))
        if not is_reserved(channel):
            for prefix, number in self._prefixes:
                if number > found:
                    break
                if channel.startswith(prefix):
                    return number
        return found if found < len(self.rules) else NO_RULE


def now_ms() -> int:
    """Return the time, unix ms."""
    return time.time_ns() // 1_000_000


def expired(now_ms: int, seconds: float | None) -> int:
    """Return the position below which a record is older than this; 0 if there is no limit."""
    return 0 if seconds is None else make_position(max(now_ms - int(seconds * 1000), 0))


def settled(now_ms: int) -> int:
    """Return the position below which a rule's count may trim."""
    return expired(now_ms, RULE_GRACE)
