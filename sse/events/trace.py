"""W3C Trace Context (level 1): the traces that events carry from publishers to the workers that deliver them. Pure.

Only sampled traces are carried; of all others nothing is stored. Events carry the publish's trace id and parent id, not
``tracestate``, which is for vendors to whom a request is passed on.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# §3.2: version "-" trace-id "-" parent-id "-" trace-flags, in lower-case hex. A version above 00 may have more after
# another dash (§4.3 step 3); it is read as if it were 00.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_SAMPLED: Final = 1  # §3.2.2.5.1: the only flag of level 1; all others are ignored

_MARK: Final = re.compile(rb"r (\S{55}) ([0-9]{1,9})")


class Trace(NamedTuple):
    """A publish whose trace is sampled.

    first, last: the positions of its events, which are consecutive; parent: a traceparent of version 00.
    """

    first: int
    last: int
    parent: str

    @property
    def trace_id(self) -> str:
        return trace_id(self.parent)


def trace_id(parent: str) -> str:
    """Return the trace's id in a traceparent."""
    return parent[3:35]


def sampled(header: str | None) -> str | None:
    """Return a ``traceparent`` header in the form of version 00 if it is valid and sampled, else None.

    An invalid header is ignored (§4.3 step 2).
    """
    found = None if header is None else _TRACEPARENT.fullmatch(header)
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None  # §3.2.2.1: ff is forbidden; §3.2.2: 00 ends with its flags
    if trace == "0" * 32 or parent == "0" * 16 or not int(flags, 16) & _SAMPLED:
        return None  # §3.2.2.3, §3.2.2.4: ids of nothing but zeros are invalid
    return f"00-{trace}-{parent}-01"


def read_mark(mark: bytes, first: int) -> Trace | None:
    """Return the trace in a text ``r <traceparent> <number of events>`` of the log; None for any other text."""
    found = _MARK.fullmatch(mark)
    parent = sampled(found[1].decode("ascii", "replace")) if found else None
    return None if found is None or parent is None else Trace(first, first + int(found[2]) - 1, parent)
