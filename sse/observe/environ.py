"""The WSGI environ keys of this package: who sets each, and who reads it.

Another server may offer the worker's capabilities under the same keys, so do not change names or values.
"""

from __future__ import annotations

from typing import Final

# Set by the worker, for a request whose connection it can hand over. ``(hub, stream, size) -> bool``: hand the
# connection to the fan-out after ``size`` bytes of the opening; False if it cannot. Read by :mod:`sse.web.streaming`.
TAKEOVER: Final = "sse.takeover"

# Set by the worker with TAKEOVER. ``() -> (() -> None) | None``: asked before the response begins whether its
# connection could be handed over with gzip coding; the answer is None, or a function that adds the headers for it.
# Read by :mod:`sse.web.streaming`.
GZIP: Final = "sse.gzip"

# Set by the worker for every request. ``() -> bool``: whether the client has closed its side; never blocks. Read by
# streams that a generator serves. If it is set, the worker also adds the request id to every answer.
HUNG_UP: Final = "sse.hung_up"

# Set by the worker for every request. ``() -> str``: why the connection was lost, for the log and the metrics. Read by
# streams that a generator serves.
WHY_LOST: Final = "sse.why_lost"

# Set (True) when a stream opens. Read by the worker, because a stream writes its own log line at its end.
STREAM: Final = "sse.stream"

# Set and read by :func:`sse.observe.request_id.request_id`: the request's id, chosen once.
REQUEST_ID: Final = "sse.request_id"

# Set by a publish whose trace is sampled: the trace id. Read by the access log.
TRACE: Final = "sse.trace"

# Set and read by :mod:`sse.observe.otel`: the request's span.
SPAN: Final = "sse.span"

# Set by the worker for a request whose head it may see again on the connection. ``(again: (bytes) -> bytes | None)``:
# for a request with the same head, the worker may call ``again`` with the body, in place of the app. It returns the
# body of an answer with the same status and headers; None if the app must answer; and raises an error that the app
# must answer, with that error as RAISED. Called by the fast path.
REPEAT: Final = "sse.repeat"

# Set by the fast path, and by the worker (see REPEAT): the error that the view raises again, so that Flask's error
# handlers see it. Read by the routes.
RAISED: Final = "sse.raised"

# Set by the worker if health has a listener of its own: whether that one accepted the connection. Read by
# ``health.listeners``, which has its own copy of the name, and without it compares addresses.
HEALTH_LISTENER: Final = "health.listener"
