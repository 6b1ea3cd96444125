"""Who may do what, as a table; and the channel patterns of tokens and settings.

Four facts decide: SSE_AUTH, whether a publish key is set, whether a token key is set, and whether *only this machine*
can reach the process. The last depends on the addresses that it really listens on, because a command line can override
the settings; an unknown address counts as reachable. ``RULES`` is the whole decision: the first matching row wins, and
every combination has one.

Channels whose names begin with "_" are the service's own. No ``*`` matches them: a pattern must spell the underscore.
Anybody may read ``_canary``, which the probes open; it carries only heartbeats. ``_stats`` has figures about the
service: anybody may read it where reading is public, elsewhere only tokens whose pattern spells it.
"""

import enum
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from ..events.model import CHANNEL_PATTERN, RESERVED_CHANNEL_PATTERN

# Each channel of a batch (up to 10,000) is compared with each pattern. This limits the product: time in the event loop
# that one token's holder could take from everybody.
MAX_PATTERNS: Final = 256


class Publishing(enum.Enum):
    """What a publisher must present."""

    OPEN = "nothing: SSE_AUTH=none opens it to everybody"
    LOCAL = "nothing, but only directly from this machine, and not from another site's page"
    CLOSED = "a key to be set first: it is closed"
    KEY = "the publish key"
    TOKEN = "a token whose claim covers the channels"
    KEY_OR_TOKEN = "the publish key, or a token whose claim covers the channels"


class Reading(enum.Enum):
    """What a subscriber must present."""

    PUBLIC = "nothing"
    TOKEN = "a token whose claim covers the channels, except for SSE_PUBLIC_CHANNELS"


class Rule(NamedTuple):
    """A row: the facts that it matches (None matches any), and the decision."""

    auth: str | None
    key: bool | None
    jwt: bool | None
    loopback: bool | None
    publishing: Publishing
    reading: Reading


RULES: Final = (
    #     SSE_AUTH  key    jwt    loopback  publishing                reading
    Rule("none", None, None, None, Publishing.OPEN, Reading.PUBLIC),
    Rule("auto", True, True, None, Publishing.KEY_OR_TOKEN, Reading.TOKEN),
    Rule("auto", True, False, None, Publishing.KEY, Reading.PUBLIC),
    Rule("auto", False, True, None, Publishing.TOKEN, Reading.TOKEN),
    Rule("auto", False, False, True, Publishing.LOCAL, Reading.PUBLIC),
    Rule("auto", False, False, False, Publishing.CLOSED, Reading.PUBLIC),
)


def decide(*, auth: str, key: bool, jwt: bool, loopback: bool) -> Rule:
    """Return the matching row of ``RULES``.

    Raises LookupError for an unknown ``auth``; no default may let anybody in.
    """
    facts = (auth, key, jwt, loopback)
    for rule in RULES:
        if all(want is None or want == fact for want, fact in zip(rule[:4], facts, strict=True)):
            return rule
    raise LookupError(f"no rule for SSE_AUTH={auth!r}")


def is_reserved(channel: str) -> bool:
    """True for the service's own channels."""
    return channel.startswith("_")


def check_pattern(pattern: str) -> str:
    """Return the pattern if it can match anything: a channel name, the beginning of one plus ``*``, or ``*``.

    For settings and for tokens that we mint, where a pattern that matches nothing (``orders:*:new``) is a mistake. In
    somebody else's token such a pattern just grants nothing.

    Raises ValueError.
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
    """A set of channel patterns. Immutable.

    A trailing ``*`` matches any rest of a name. Elsewhere ``*`` is an ordinary character, which no channel's name
    contains, so such a pattern matches nothing. Names are compared by code point, without case folding or Unicode
    normalisation: two spellings are never the same channel.
    """

    __slots__ = ("_exact", "_prefixes", "_reserved_prefixes")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        given = frozenset(patterns)
        stems = [pattern[:-1] for pattern in given if pattern.endswith("*")]
        self._exact = frozenset(pattern for pattern in given if not pattern.endswith("*"))
        self._prefixes = tuple(stem for stem in stems if not is_reserved(stem))
        self._reserved_prefixes = tuple(stem for stem in stems if is_reserved(stem))

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes or self._reserved_prefixes)

    def covers(self, channel: str) -> bool:
        """True if one of the patterns matches ``channel``. Takes about 1 µs."""
        prefixes = self._reserved_prefixes if is_reserved(channel) else self._prefixes
        return channel != "" and (channel in self._exact or channel.startswith(prefixes))

    def first_missing(self, channels: Collection[str]) -> str | None:
        """Return the first channel that no pattern matches; None if all are covered."""
        return next((channel for channel in channels if not self.covers(channel)), None)
