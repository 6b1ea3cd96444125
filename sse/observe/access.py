"""The access log: one line for each ordinary request, one for each stream at its end. docs/logs.md has the fields."""

from __future__ import annotations

import logging
import time
from typing import Any

from ..auth.address import peer_address
from ..runtime.lines import Line
from ..streams.stream import Stream
from .environ import TRACE
from .request_id import request_id

logger = logging.getLogger("headwater.access")


def enabled() -> bool:
    """Tell whether the access log is on, so that callers need not build a line in vain."""
    return logger.isEnabledFor(logging.INFO)


def stream_ended(stream: Stream, reason: str, now: float) -> None:
    """Log a stream that has ended. ``now``: monotonic seconds."""
    if enabled():
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
    """Log a view's own stream (``SSE.response``) that has ended.

    target: path and query, secrets redacted; size: bytes sent; duration: seconds.
    """
    if enabled():
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
    """Log an ordinary request.

    target: path and query, secrets redacted; size: body bytes sent; began: monotonic seconds.
    """
    if enabled():
        line = Line(
            "request",
            client=peer_address(environ) or "-",
            method=environ.get("REQUEST_METHOD", "-"),
            target=target,
            status=int(status[:3]) if status[:1].isdigit() else 0,  # 0: the app set no status
            bytes=size,
            duration=round(time.monotonic() - began, 4),
            request_id=request_id(environ),
        )
        if TRACE in environ:
            line.fields["trace"] = environ[TRACE]
        logger.info(line)
