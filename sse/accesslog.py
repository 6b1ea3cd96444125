"""The access log: one line per ordinary request, one line per stream at its end.

Lines are ``key=value`` pairs; whatever came from outside is quoted by JSON's rules, so that no request can forge a
line or a field (threat: log injection).
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from sse.stream import Stream

logger = logging.getLogger("headwater.access")

# What may stand in a line unquoted.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:/*,@+~[]")


def quoted(value: object) -> str:
    """A value that cannot end its field or its line."""
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)


def stream_ended(stream: Stream, reason: str, now: float) -> None:
    """One stream's line: who, what, how long (seconds), how much, why it ended. ``now``: monotonic seconds."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "stream client=%s channels=%s duration=%.3f events=%d bytes=%d reason=%s",
            quoted(stream.client),
            quoted(stream.group.subscription.label()),
            now - stream.opened,
            stream.events,
            stream.bytes,
            reason,
        )


def response_ended(client: str, target: str, reason: str, events: int, size: int, duration: float) -> None:
    """The line of a view's own stream (:meth:`sse.extension.SSE.response`). ``target``: path and query with secrets
    already redacted; ``duration``: seconds."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "stream client=%s target=%s duration=%.3f events=%d bytes=%d reason=%s",
            quoted(client),
            quoted(target),
            duration,
            events,
            size,
            reason,
        )


def request_answered(environ: dict[str, Any], target: str, status: str, size: int, began: float) -> None:
    """One ordinary request's line. ``target``: path and query with secrets already redacted; ``size``: body bytes sent;
    ``began``: monotonic seconds."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "request client=%s method=%s target=%s status=%s bytes=%d duration=%.4f",
            quoted(environ.get("REMOTE_ADDR", "-")),
            quoted(environ.get("REQUEST_METHOD", "-")),
            quoted(target),
            status[:3],
            size,
            time.monotonic() - began,
        )
