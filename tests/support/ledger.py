"""Checks that a client was sent exactly what was acknowledged: nothing lost, nothing twice, all in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tests.support.publisher import Published


def position(name: str) -> tuple[int, int]:
    """Return an id as a value that sorts like the log."""
    ms, _, n = name.partition("-")
    return int(ms), int(n)


def owed(
    published: Sequence[Published],
    begin: str,
    channels: Collection[str] = ("a",),
    types: Collection[str] | None = None,
) -> list[str]:
    """Return the ids that a subscription must get after a cursor, in order."""
    after = position(begin)
    return [
        entry.id
        for entry in published
        if entry.position > after
        and entry.channel in channels
        and (types is None or (entry.event or "message") in types)
    ]


def check(seen: Sequence[str], expected: Sequence[str], what: object = "a client") -> None:
    """Fail with the kind and place of the first difference, if there is one.

    seen: ids in the order of arrival. expected: the ids that must have arrived.
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
