"""List the channels that the log has, with their listeners: ``GET /channels`` and ``sse.channels(…)``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from werkzeug.wrappers import Request

from ..auth.decision import AccessDenied
from ..events.model import format_id
from ..log import ChannelInfo
from ..log.base import CHANNELS_MOST
from ..runtime.cooperation import offload
from ..streams.listeners import Listeners
from .access import allowed
from .answers import check_log
from .query import PAGE, check_query, checked_channel, checked_selector, number, single_value
from .service import Service


class Channel(NamedTuple):
    """A channel that has events or is closed.

    events, bytes: that the log holds, bytes in UTF-8; oldest, latest: their ids, None without any; streams: that are
    open now, of all workers.
    """

    channel: str
    events: int
    bytes: int
    oldest: str | None
    latest: str | None
    closed: bool
    streams: int


def list_channels(service: Service, request: Request) -> str:
    """Return the answer of ``GET /channels``. Raises the errors that :func:`sse.web.answers.refusal` knows."""
    check_log(service, request)
    check_query(request)
    prefix = single_value(request, "prefix") or ""
    checked_selector(f"{prefix}*", "prefix")
    after = single_value(request, "after") or ""
    if after:
        checked_channel(after, "after")
    limit = number(request, "limit", PAGE, 1, CHANNELS_MOST)
    try:
        allowed(service, request, "manage", (f"{prefix}*",))
    except AccessDenied:
        # Who may read all of these sees their names anyway, in a stream with ?envelope=1.
        allowed(service, request, "subscribe", (f"{prefix}*",))
    found = offload(service.log.channels, prefix, after, limit)
    more = len(found) == limit and bool(offload(service.log.channels, prefix, found[-1].channel, 1))
    listeners = service.hub.listeners()
    page = [_with_listeners(info, listeners)._asdict() for info in found]
    return json.dumps({"channels": page, "next": found[-1].channel if more else None}) + "\n"


def every_channel(service: Service, prefix: str) -> Iterator[Channel]:
    """Yield all channels whose names begin so, by name. Raises LogUnavailable."""
    listeners = service.hub.listeners()
    after = ""
    while found := offload(service.log.channels, prefix, after, CHANNELS_MOST):
        for info in found:
            yield _with_listeners(info, listeners)
        after = found[-1].channel


def _with_listeners(info: ChannelInfo, listeners: Listeners) -> Channel:
    oldest, latest = (None if at is None else format_id(at) for at in (info.oldest, info.latest))
    return Channel(
        info.channel, info.events, info.bytes, oldest, latest, info.closed, streams=listeners.of(info.channel)
    )
