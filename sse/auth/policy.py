"""Who may do what, as data; and the channel patterns in which tokens and settings say it.

Theory of operation
===================

Four facts decide: what `SSE_AUTH` says, whether a publish key is configured, whether JSON Web Tokens are, and
whether the process is *really* reachable from this machine only (the addresses that it listens on, not a
setting: a command line can override that). `RULES` is the whole decision; the first row that fits wins, and a
row for every combination is there. An unknown listening address counts as reachable.

Channels whose names begin with "_" are reserved for the service's own use. No ``*`` reaches them: a token
must spell the underscore. Anybody may read ``_canary``, which carries heartbeats only and is what the probes
open. ``_stats`` has numbers about the service itself: public where reading is, else for patterns that name it.
"""

import enum
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from ..events.model import CHANNEL_PATTERN, RESERVED_CHANNEL_PATTERN

# A batch is checked channel by channel (10,000 at most) against each pattern: this bounds the product, which
# is time in the event loop that the holder of one token could take from everybody.
MAX_PATTERNS: Final = 256


class Publishing(enum.Enum):
    """What a publisher has to show."""

    OPEN = "nothing: SSE_AUTH=none opens it to everybody"
    LOCAL = "nothing, from this machine, directly, and not from a foreign web page"
    CLOSED = "a key to be set first: it is closed"
    KEY = "the publish key"
    TOKEN = "a token whose claim covers the channels"
    KEY_OR_TOKEN = "the publish key, or a token whose claim covers the channels"


class Reading(enum.Enum):
    """What a subscriber has to show."""

    PUBLIC = "nothing"
    TOKEN = "a token whose claim covers the channels, except for SSE_PUBLIC_CHANNELS"


class Rule(NamedTuple):
    """One row: the facts it is for (None: either way), and what follows."""

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
    """The row of `RULES` for these facts.

    Raises LookupError for an `auth` that no row knows: never a default that opens something.
    """
    facts = (auth, key, jwt, loopback)
    for rule in RULES:
        if all(want is None or want == fact for want, fact in zip(rule[:4], facts, strict=True)):
            return rule
    raise LookupError(f"no rule for SSE_AUTH={auth!r}")


# --- Patterns -----------------------------------------------------------------------------------------------


def is_reserved(channel: str) -> bool:
    """True for the service's own channels."""
    return channel.startswith("_")


def check_pattern(pattern: str) -> str:
    """The pattern, if it can match anything: a channel name, the beginning of one and ``*``, or ``*`` alone.

    Raises ValueError otherwise. For settings and for new tokens, where a pattern that silently matches
    nothing (``orders:*:new``) is a mistake; a token that somebody else issued just grants nothing by it.
    """
    stem = pattern.removesuffix("*")
    named = CHANNEL_PATTERN.fullmatch(stem) or RESERVED_CHANNEL_PATTERN.fullmatch(stem)
    if named or pattern in ("*", "_*"):
        return pattern
    raise ValueError(
        "a pattern is a channel name, the beginning of one followed by '*', or '*' alone"
        " (only a trailing '*' is special)"
    )


class Patterns:
    """A set of channel patterns. Immutable; `covers` takes about a microsecond.

    A trailing ``*`` matches every name that begins with what stands before it; ``*`` elsewhere is an ordinary
    character, and since no channel has it in its name, such a pattern matches nothing. Comparison is by code
    point: no case folding, no Unicode normalisation, nothing that two spellings of a name could slip through.
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
        """True if one of the patterns matches `channel`."""
        prefixes = self._reserved_prefixes if is_reserved(channel) else self._prefixes
        return channel != "" and (channel in self._exact or channel.startswith(prefixes))

    def first_missing(self, channels: Collection[str]) -> str | None:
        """The first channel that no pattern matches, or None if all are covered."""
        return next((channel for channel in channels if not self.covers(channel)), None)
