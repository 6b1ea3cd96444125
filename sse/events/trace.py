"""W3C Trace Context (level 1): which traces are carried with events, from the publisher to whoever delivers them. Pure.

Only sampled ones are: for these somebody has asked to see what becomes of a request, and of all the others nothing is
stored or done. What is carried is the publish's trace and parent id. Not carried is ``tracestate``: it is for vendors
to whom a request is passed on, and events are passed on to nobody.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# §3.2: version "-" trace-id "-" parent-id "-" trace-flags, in lower-case hex. A version beyond 00 may have more behind
# a dash (§4.3 step 3); it is read as if it were 00.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = 1  # §3.2.2.5.1: the only flag of level 1; all others are ignored

_MARK: Final = re.compile(rb"r (\S{55}) ([0-9]{1,9})")


class Trace(NamedTuple):
    """A publish whose trace is sampled: the events from position ``first`` through ``last``, which follow each other.
    ``parent``: a traceparent of version 00."""

    first: int
    last: int
    parent: str

    @property
    def trace_id(self) -> str:
        return trace_id(self.parent)


def trace_id(parent: str) -> str:
    """The trace's id in a traceparent."""
    return parent[3:35]


def sampled(header: str | None) -> str | None:
    """The ``traceparent`` header in the form of version 00 if it is valid and its sampled flag is set; else None: one
    that cannot be read is ignored, as if it had not come (§4.3 step 2)."""
    found = None if header is None else _TRACEPARENT.fullmatch(header)
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None  # §3.2.2.1: ff is forbidden; §3.2.2: 00 ends with its flags
    if trace == "0" * 32 or parent == "0" * 16 or not int(flags, 16) & _SAMPLED:
        return None  # §3.2.2.3, §3.2.2.4: ids of zeros only are invalid
    return f"00-{trace}-{parent}-01"


def read_mark(mark: bytes, first: int) -> Trace | None:
    """The trace in a name ``r <traceparent> <number of events>``; None for any other name."""
    found = _MARK.fullmatch(mark)
    parent = sampled(found[1].decode("ascii", "replace")) if found else None
    return None if found is None or parent is None else Trace(first, first + int(found[2]) - 1, parent)
