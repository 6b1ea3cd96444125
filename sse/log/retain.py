"""Retention rules as people write them: ``audit:*=30d,cursor:*=60s,orders=100000/7d``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ..events.patterns import Patterns, check_pattern, is_pattern, is_reserved
from .base import RetainRule

#: The form of a rule, for error texts.
ALLOWED: Final = (
    "a list of rules pattern=count, pattern=duration or pattern=count/duration (duration: a number and s, m, h or d)"
)

# As for SSE_RETAIN_EVENTS and SSE_RETAIN_SECONDS.
MAX_EVENTS: Final = 1_000_000_000
MAX_SECONDS: Final = 10 * 366 * 86_400

# A new channel's name is compared with every rule.
MAX_RULES: Final = 256

_SHOWN: Final = 60  # characters of a rule that an error quotes
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LIMIT: Final = re.compile(
    r"(?:(?P<count>[0-9]{1,12})(?:/(?=.)|$))?(?:(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?)(?P<unit>[smhd]))?", re.ASCII
)


def parse_rules(texts: Iterable[str]) -> list[RetainRule]:
    """Read retention rules. Raises ValueError, which quotes the first rule that is wrong."""
    rules: list[RetainRule] = []
    for text in texts:
        try:
            rule = _parse(text)
            _check_reached(rule, rules)
        except ValueError as error:
            raise ValueError(f"rule {ascii(text[:_SHOWN])}: {error}") from None
        rules.append(rule)
    if len(rules) > MAX_RULES:
        raise ValueError(f"{len(rules)} rules, at most {MAX_RULES} are allowed")
    return rules


def _parse(text: str) -> RetainRule:
    pattern, equals, limit = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError("it has no =")
    check_pattern(pattern)
    if is_reserved(pattern):
        raise ValueError("channels whose names begin with _ are the service's own")
    found = _LIMIT.fullmatch(limit)
    if not limit or found is None:
        raise ValueError("after = comes a count, a duration such as 60s or 30d, or both as count/duration")
    events = None if found["count"] is None else int(found["count"])
    seconds = None if found["unit"] is None else float(found["number"]) * _UNITS[found["unit"]]
    if events is not None and not 1 <= events <= MAX_EVENTS:
        raise ValueError(f"a count is from 1 to {MAX_EVENTS}")
    if seconds is not None and not 1 <= seconds <= MAX_SECONDS:
        raise ValueError(f"a duration is from 1s to {MAX_SECONDS // 86_400}d")
    return RetainRule(pattern, events, seconds)


def _check_reached(rule: RetainRule, before: list[RetainRule]) -> None:
    """Refuse a rule that decides nothing. Raises ValueError."""
    for earlier in before:
        covering = Patterns((earlier.pattern,))
        if covering.covers_pattern(rule.pattern) if is_pattern(rule.pattern) else covering.covers(rule.pattern):
            raise ValueError(f"the rule for {earlier.pattern} before it matches all of its channels; the first wins")
