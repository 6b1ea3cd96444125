"""Was a client sent exactly what was acknowledged: nothing lost, nothing twice, everything in order?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tests.support.publisher import Published


def position(name: str) -> tuple[int, int]:
    """An id as something that sorts as the log does."""
    ms, _, n = name.partition("-")
    return int(ms), int(n)


def owed(
    published: Sequence[Published],
    begin: str,
    channels: Collection[str] = ("a",),
    types: Collection[str] | None = None,
) -> list[str]:
    """The ids that a subscription is owed after a cursor, in order."""
    after = position(begin)
    return [
        entry.id
        for entry in published
        if entry.position > after
        and entry.channel in channels
        and (types is None or (entry.event or "message") in types)
    ]


def check(seen: Sequence[str], expected: Sequence[str], what: object = "a client") -> None:
    """Fail, with the kind and place of the first difference.

    seen: ids in the order in which they came. expected: those that must have come.
    """
    if list(seen) == list(expected):
        return
    twice = [name for name, times in Counter(seen).items() if times > 1]
    came, wanted = set(seen), set(expected)
    lost = [name for name in expected if name not in came]
    more = [name for name in seen if name not in wanted]
    disorder = [b for a, b in zip(seen, seen[1:], strict=False) if position(b) < position(a)]
    raise AssertionError(
        f"{what}: {len(seen)} of {len(expected)} events; lost {len(lost)} {lost[:3]}, twice {len(twice)} {twice[:3]}, "
        f"out of order {len(disorder)} {disorder[:3]}, not expected {len(more)} {more[:3]}"
    )
