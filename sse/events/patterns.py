"""Channel patterns: what a subscription, a token or a retention rule selects. Pure.

A *selector* is a channel's name, or a pattern: a string that ends in ``*``, which no name does. A pattern matches every
channel that begins with what stands before the ``*``; a ``*`` elsewhere is an ordinary character. Comparison is by code
point: no case folding, no Unicode normalisation, nothing that two spellings of a name could slip through.

Channels whose names begin with "_" are reserved for the service's own use. No pattern of a subscription or a rule
reaches them. Only a token's or a setting's pattern that itself begins with "_" does (``Patterns``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .model import CHANNEL_PATTERN, RESERVED_CHANNEL_PATTERN


def is_reserved(channel: str) -> bool:
    """Return True for the service's own channels, and for patterns of these."""
    return channel.startswith("_")


def is_pattern(selector: str) -> bool:
    """Return True for a pattern, False for a channel's name."""
    return selector.endswith("*")


def check_pattern(pattern: str) -> str:
    """Return the pattern, if it can match anything: a channel name, the beginning of one and ``*``, or ``*`` alone.

    For settings and for tokens that we mint, where a pattern that matches nothing (``orders:*:new``) is a mistake. In
    somebody else's token such a pattern just grants nothing. Raises ``ValueError``.
    """
    stem = pattern.removesuffix("*")
    named = CHANNEL_PATTERN.fullmatch(stem) or RESERVED_CHANNEL_PATTERN.fullmatch(stem)
    if named or pattern in ("*", "_*"):
        return pattern
    raise ValueError(
        "a pattern is a channel name, the beginning of one followed by '*', or '*' alone"
        " (only a '*' at the end is special)"
    )


class Patterns:
    """A set of names and patterns that says what is allowed. Immutable; ``covers`` takes about a microsecond.

    Reserved channels are reached by their names, and by patterns that begin with "_".
    """

    __slots__ = ("_exact", "_prefixes", "_reserved_prefixes")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        given = frozenset(patterns)
        stems = [pattern[:-1] for pattern in given if is_pattern(pattern)]
        self._exact = frozenset(pattern for pattern in given if not is_pattern(pattern))
        self._prefixes = tuple(stem for stem in stems if not is_reserved(stem))
        self._reserved_prefixes = tuple(stem for stem in stems if is_reserved(stem))

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes or self._reserved_prefixes)

    def covers(self, channel: str) -> bool:
        """Return True if one of them matches ``channel``, a name."""
        prefixes = self._reserved_prefixes if is_reserved(channel) else self._prefixes
        return channel != "" and (channel in self._exact or channel.startswith(prefixes))

    def covers_pattern(self, pattern: str) -> bool:
        """Return True if one of them matches every channel that ``pattern`` matches.

        ``orders:*`` covers ``orders:eu:*``, not the other way round. Names never cover a pattern, however many.
        """
        prefixes = self._reserved_prefixes if is_reserved(pattern) else self._prefixes
        return is_pattern(pattern) and pattern[:-1].startswith(prefixes)

    def first_missing(self, channels: Collection[str]) -> str | None:
        """Return the first name or pattern that is not covered, or None if all are."""
        return next((c for c in channels if not (self.covers_pattern(c) if is_pattern(c) else self.covers(c))), None)


def split(channels: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Split selectors into names, and the prefixes that their patterns stand for, sorted.

    Patterns that begin with "_" are left out: they match nothing.
    """
    given = frozenset(channels)
    names = frozenset(selector for selector in given if not is_pattern(selector))
    stems = (selector[:-1] for selector in given - names)
    return names, tuple(sorted(stem for stem in stems if not is_reserved(stem)))


def matcher(channels: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether one of these selectors matches a channel."""
    names, prefixes = split(channels)
    if not prefixes:
        return names.__contains__
    return lambda channel: channel in names or (channel.startswith(prefixes) and not is_reserved(channel))


def reduced(channels: Iterable[str]) -> frozenset[str]:
    """Drop the selectors that a broader pattern among them covers, so that at most one matches any channel.

    Patterns that begin with "_" are dropped, too: they match nothing.
    """
    names, prefixes = split(channels)
    broadest: list[str] = []
    for prefix in prefixes:  # sorted: a prefix of another one stands before it
        if not (broadest and prefix.startswith(broadest[-1])):
            broadest.append(prefix)
    covered = matcher(f"{prefix}*" for prefix in broadest)
    return frozenset((*(name for name in names if not covered(name)), *(f"{prefix}*" for prefix in broadest)))
