"""History as JSON, and long polling: ``GET /events/<channel>`` with ``Accept: application/json``.

An answer is a page of events after a cursor, and the cursor to go on from (``next``). It comes from the window or the
log by the same reads as a stream's replay, so no event is skipped or repeated between two pages.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from werkzeug.wrappers import Request

from ..auth.address import address_bucket
from ..auth.decision import Grant
from ..events.markers import is_marker
from ..events.model import STREAM_RESET, format_id
from ..events.names import INJECTED_CHANNELS
from ..events.patterns import is_pattern, reduced
from ..events.wire import Frame
from ..log import LogUnavailable
from ..observe.environ import HUNG_UP
from ..observe.request_id import request_id
from ..runtime.cooperation import breathe
from ..streams.group import Subscription
from ..streams.hub import Hub
from ..streams.poll import Poll
from ..streams.pull import PAGES_PER_TURN
from ..streams.replay import FellBehind
from .access import allowed
from .answers import check_log
from .problems import Problem
from .query import asked_cursor, asked_page, asked_types, check_query, checked_channels, flag
from .servers import refuse_or_warn
from .service import Service
from .streaming import START_PATIENCE

# An answer ends with the page of the log that brings it to this many bytes (threat: a thousand of the largest events).
PAGE_BYTES: Final = 1024 * 1024

# Pages of the log that are read in a row: a request for a rare type must not read all of it at once.
PAGES_MOST: Final = 64

# Seconds after which a client that could not wait may try again.
RETRY_AFTER: Final = 5


def read_history(service: Service, request: Request, channels: tuple[str, ...]) -> bytes:
    """Return a page of events as JSON, at once or when there is one.

    Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    began = time.monotonic()
    check_log(service, request)
    check_query(request)
    checked_channels(channels, service.settings.sse_max_channels)
    if not INJECTED_CHANNELS.isdisjoint(channels):
        raise Problem(400, f"{' and '.join(sorted(INJECTED_CHANNELS))} have no history", field="channel")
    limit, wait = asked_page(request)
    for form in ("envelope", "plain"):
        flag(request, form)  # mean nothing here, but must be valid
    subscription = Subscription(reduced(channels), asked_types(request))
    grant = allowed(service, request, "subscribe", channels)
    hub = service.hub
    if not hub.wait_ready(START_PATIENCE):
        raise LogUnavailable("the worker has not read its log yet", stored="no")
    history = History(hub, subscription, limit, *asked_cursor(request))
    history.read()
    if wait and not history.answers() and request.method != "HEAD":
        _wait_for_more(service, request, history, grant, wait, began)
    return history.page()


def _wait_for_more(
    service: Service, request: Request, history: History, grant: Grant, wait: float, began: float
) -> None:
    """Read on when the subscription gets something, until there is an answer or the time is over.

    Raises Problem (503) if the server cannot hold a request that waits, or the worker has no room for another one.
    """
    places = refuse_or_warn(request.environ)
    hub = service.hub
    if places is not None:
        hub.admission.limit_pulling(places)
    client = service.authenticator.client_address(request.environ)
    if service.settings.sse_max_streams_per_ip:
        client = address_bucket(client)
    refused = hub.admission.admit_poll(client)
    if refused == "drain":
        return
    if refused is not None:
        detail = "no room for another request that waits; ask again later, or without wait"
        raise Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER)})
    if grant.expires_at is not None:
        wait = min(wait, grant.expires_at - time.time())
    deadline = time.monotonic() + wait
    waiting = Poll(
        hub,
        history.subscription,
        client,
        owner=grant.owner,
        request_id=request_id(request.environ),
        opened=began,
        hung_up=request.environ.get(HUNG_UP),
    )
    with waiting as poll:
        more = history.read()  # what came before the hub knew of the poll
        while not history.answers() and (more or poll.wait(deadline)):
            breathe()
            more = history.read() and time.monotonic() < deadline
        if not history.answers() and not poll.ended:
            history.read()  # the cursor goes on, past events of other channels


class History:
    """A page that is being read.

    limit: of events. requested, position: where the client asks to begin (:func:`sse.web.query.asked_cursor`).
    Raises LogUnavailable.
    """

    def __init__(
        self, hub: Hub, subscription: Subscription, limit: int, requested: str | None, position: int | None
    ) -> None:
        self.subscription = subscription
        self._hub = hub
        self._limit = limit
        self._events: list[dict[str, Any]] = []
        self._closed = False
        self._reset: dict[str, str] | None = None
        reason, self._cursor, self._told = hub.replay.begin(
            subscription.channels, 0 if requested is None else position
        )
        if reason is not None:
            self._reset = {"reason": reason}
        # Whoever reads from the beginning has nothing that was erased since.
        self._tells_erased = requested is not None and position != 0

    def answers(self) -> bool:
        """Tell whether there is something to answer, so that the request need not wait."""
        return bool(self._events) or self._reset is not None or self._closed

    def read(self) -> bool:
        """Read on, and return whether more follows that was not looked at. Raises LogUnavailable."""
        hub, size, pages = self._hub, 0, 0
        names = [channel for channel in self.subscription.channels if not is_pattern(channel)]
        patterns = len(names) < len(self.subscription.channels)
        ends = {} if patterns else hub.closed_channels(names)
        through = hub.window.position
        while self._cursor < through and len(self._events) < self._limit and size < PAGE_BYTES and pages < PAGES_MOST:
            pages += 1
            if pages % PAGES_PER_TURN == 0:
                breathe()
            try:
                page = hub.replay.read_page(self.subscription, self._cursor, through, self._told)
            except FellBehind:
                reason, self._cursor, self._told = hub.replay.begin(self.subscription.channels, self._cursor)
                self._reset = {"reason": reason or "expired"}
                continue
            self._cursor = self._take(page.frames, page.position)
            size += sum(len(frame.wire) for frame in page.frames)
        self._closed = len(ends) == len(names) > 0 and not patterns and self._cursor >= max(ends.values())
        return self._cursor < through

    def _take(self, frames: list[Frame], position: int) -> int:
        """Add events until the page is full; return the position through which it is complete."""
        for frame in frames:
            if is_marker(frame.event):
                if frame.event == STREAM_RESET and self._tells_erased:
                    self._reset = {"reason": "erased", "channel": frame.channel}
                continue
            if len(self._events) == self._limit:
                return int(self._events[-1]["position"])
            self._events.append(
                {
                    "position": frame.position,
                    "id": format_id(frame.position),
                    "channel": frame.channel,
                    "event": frame.event,
                    "data": frame.text(),
                }
            )
        return position

    def page(self) -> bytes:
        """Return the answer."""
        for event in self._events:
            del event["position"]
        answer = {
            "events": self._events,
            "next": format_id(self._cursor),
            "reset": self._reset,
            "closed": self._closed,
        }
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
