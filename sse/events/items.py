"""What an app's own iterable yields: a string, a :class:`Message`, or a mapping with its fields. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Message(NamedTuple):
    """One event of a view's own stream.

    id: any text of the app's; a client sends it back as Last-Event-ID, for the view to read. retry: milliseconds.
    """

    data: str
    event: str | None = None
    id: str | None = None
    retry: int | None = None


Item = str | Message | Mapping[str, Any]


def as_message(item: Item) -> Message:
    """Return an item as a :class:`Message`; a string is its data. Raises TypeError for anything else."""
    if isinstance(item, str):
        return Message(item)
    if isinstance(item, Message):
        return item
    if isinstance(item, Mapping):
        unknown = set(item) - set(Message._fields)
        if unknown:
            raise TypeError(f"an event's fields are {', '.join(Message._fields)}, not {sorted(unknown)!r}")
        return Message(**{"data": "", **item})
    raise TypeError(f"an event is a str, a sse.Message or a mapping with its fields, not {type(item).__name__}")
