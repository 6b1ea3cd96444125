"""The service's own records in a log: what it tells everybody who reads a channel, in the channel's order.

A channel's end, its erasure and the end of a run are stored as records *of that channel*, with event types that
publishers cannot use (``CONTROL_EVENTS``). So whatever delivers, replays and resumes events delivers them, too, and
nobody is told of them in any other way. They are not events: history, counts and filters leave them out or let them
pass, but never count them.

The channel ``_control`` carries what belongs to no channel and is meant for the workers themselves.
"""

from __future__ import annotations

import json
from typing import Final

from .model import CONTROL_EVENTS, HEARTBEAT, STREAM_END, STREAM_RESET, Event, Record, format_id

#: The event types that are stored. (A heartbeat never is.)
MARKERS: Final = CONTROL_EVENTS - {HEARTBEAT}


def is_marker(event: str | None) -> bool:
    """Return True for the event type of a record that the service itself has stored."""
    return event in MARKERS


def own_event(channel: str, event: str, data: str) -> Event:
    """Build an event that only the service may publish: of a reserved type, or for a reserved channel.

    Nothing is checked, so no part of it may be a publisher's text except ``data``, which UTF-8 must be able to carry.
    """
    made = object.__new__(Event)
    for name, value in (("channel", channel), ("data", data), ("event", event), ("retry", None)):
        object.__setattr__(made, name, value)
    return made


def end_marker(channel: str) -> Event:
    """Build the record that ends a channel. Its position is the channel's closing position."""
    return own_event(channel, STREAM_END, _compact({"channel": channel}))


def erased_marker(channel: str, position: int) -> Event:
    """Build the record that takes the place of a channel's erased ones: a ``stream-reset``, as in ``reset_block``.

    position: its own.
    """
    latest = format_id(position)
    detail = {"reason": "erased", "channel": channel, "requested": "", "oldest": None, "latest": latest}
    return own_event(channel, STREAM_RESET, _compact(detail))


def is_end(record: Record) -> bool:
    """Return True for a channel's end. (Old logs may hold events of such a type that somebody published.)"""
    return record.event == STREAM_END and record.data == end_marker(record.channel).data


def is_erasure(record: Record) -> bool:
    """Return True for the record that has taken the place of a channel's erased ones."""
    return record.event == STREAM_RESET and record.data == erased_marker(record.channel, record.position).data


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
