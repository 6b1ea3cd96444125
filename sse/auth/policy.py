"""Who may do what, as a table.

Four facts decide: SSE_AUTH, whether a publish key is set, whether a token key is set, and whether *only this machine*
can reach the process. The last depends on the addresses that it really listens on, because a command line can override
the settings; an unknown address counts as reachable. ``RULES`` is the whole decision: the first matching row wins, and
every combination has one.

Channels whose names begin with "_" are the service's own. No ``*`` matches them: a pattern must spell the underscore.
Anybody may read ``_canary``, which the probes open; it carries only heartbeats. ``_stats`` has figures about the
service: anybody may read it where reading is public, elsewhere only tokens whose pattern spells it.
"""

import enum
from typing import Final, NamedTuple

# Each channel of a batch (up to 10,000) is compared with each pattern. This limits the product: time in the event loop
# that one token's holder could take from everybody.
MAX_PATTERNS: Final = 256


class Publishing(enum.Enum):
    """What a publisher must present; and who manages channels, the same."""

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
