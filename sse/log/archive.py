"""How a log's records are written as lines of JSON. Pure."""

from __future__ import annotations

import json

from ..events.model import Record, format_id


def record_line(record: Record) -> str:
    """Write a record: ``id``, ``channel``, ``data``, and ``event`` and ``retry`` if it has them."""
    position, channel, event, retry, data = record
    fields: dict[str, object] = {"id": format_id(position), "channel": channel}
    if event is not None:
        fields["event"] = event
    if retry is not None:
        fields["retry"] = retry
    fields["data"] = data
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
