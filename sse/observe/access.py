"""The access log: one line per ordinary request, one line per stream at its end. docs/logs.md tells the fields."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..auth.address import peer_address
from ..streams.stream import Stream
from .logging import Line
from .request_id import request_id

logger = logging.getLogger("headwater.access")

# Where the environ has the trace of a publish that was sampled (see :mod:`sse.events.trace`).
TRACE = "sse.trace"


def enabled() -> bool:
    """Is anybody listening? Spares making what goes into a line."""
    return logger.isEnabledFor(logging.INFO)


def stream_ended(stream: Stream, reason: str, now: float) -> None:
    """One stream's line: who, what, how long (seconds), how much, why it ended. ``now``: monotonic seconds."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            Line(
                "stream",
                client=stream.client,
                channels=stream.group.subscription.label(),
                duration=round(now - stream.opened, 3),
                events=stream.events,
                bytes=stream.bytes,
                reason=reason,
                request_id=stream.request_id,
            )
        )


def response_ended(
    environ: dict[str, Any], client: str, target: str, reason: str, events: int, size: int, duration: float
) -> None:
    """The line of a view's own stream (:meth:`sse.extension.SSE.response`). ``target``: path and query with secrets
    already redacted; ``duration``: seconds."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            Line(
                "stream",
                client=client,
                target=target,
                duration=round(duration, 3),
                events=events,
                bytes=size,
                reason=reason,
                request_id=request_id(environ),
            )
        )


def request_answered(environ: dict[str, Any], target: str, status: str, size: int, began: float) -> None:
    """One ordinary request's line. ``target``: path and query with secrets already redacted; ``size``: body bytes sent;
    ``began``: monotonic seconds."""
    if logger.isEnabledFor(logging.INFO):
        line = Line(
            "request",
            client=peer_address(environ) or "-",
            method=environ.get("REQUEST_METHOD", "-"),
            target=target,
            status=int(status[:3]) if status[:1].isdigit() else 0,  # 0: the app gave none
            bytes=size,
            duration=round(time.monotonic() - began, 4),
            request_id=request_id(environ),
        )
        if TRACE in environ:
            line.fields["trace"] = environ[TRACE]
        logger.info(line)
