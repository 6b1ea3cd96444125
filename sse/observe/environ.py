"""The WSGI environ keys of this package: who sets each, and who reads it.

Another server that offers the same capabilities may set the worker's keys, so names and values stay as they are.
"""

from __future__ import annotations

from typing import Final

# Set by the worker, for a request whose connection it can hand over. ``(hub, stream, size) -> bool``: hand the
# connection to the fan-out after ``size`` bytes of the opening. Read by :mod:`sse.web.streaming`.
TAKEOVER: Final = "sse.takeover"

# Set by the worker for every request. ``() -> bool``: the client has closed its side; never blocks. Read by streams
# that a generator serves. Its presence also says that the worker adds the request id to every answer.
HUNG_UP: Final = "sse.hung_up"

# Set by the worker for every request. ``() -> str``: why the connection of a generator's stream was lost (a reason for
# the log and the metrics). Read by the same streams.
WHY_LOST: Final = "sse.why_lost"

# Set (True) when a stream opens. The worker reads it: a stream writes its own log line at its end.
STREAM: Final = "sse.stream"

# Set and read by :func:`sse.observe.request_id.request_id`: the request's id, chosen once.
REQUEST_ID: Final = "sse.request_id"

# Set by a publish whose trace is sampled: the trace id. Read by the access log.
TRACE: Final = "sse.trace"

# Set and read by :mod:`sse.observe.otel`: the request's span.
SPAN: Final = "sse.span"

# Set by the fast path: the error that the view raises again, so that Flask's error handlers see it. Read by the routes.
RAISED: Final = "sse.raised"

# Set by the worker where health has a listener of its own: was the connection accepted there? (bool) Read by
# :mod:`health.listeners`, which knows nothing of this module; without it, health compares the addresses itself.
HEALTH_LISTENER: Final = "health.listener"
