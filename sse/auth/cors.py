"""Cross-origin reading: the response headers of the Fetch standard's CORS protocol.

The allow-list is explicit. An origin on it may use credentials (EventSource with `withCredentials` and the
cookie). ``*`` in the list lets every page read what anybody may read: it is answered as ``*`` and without
Allow-Credentials, which browsers refuse to combine
(https://fetch.spec.whatwg.org/#cors-protocol-and-credentials), and never by echoing the Origin, which would
get round that.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from .bearer import SCHEMES
from .origin import is_allowed

# What our own routes take. Authorization has to be named: a wildcard would not cover it. Pages whose requests are
# traced send traceparent and tracestate with each of them, and could send none at all if these were not allowed.
ALLOW_METHODS: Final = "GET, HEAD, POST"
ALLOW_HEADERS: Final = ", ".join(
    [
        *(scheme.header for scheme in SCHEMES if scheme.header),
        *("Cache-Control", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"),
        *("traceparent", "tracestate"),
    ]
)
EXPOSE_HEADERS: Final = "Retry-After, WWW-Authenticate, X-Request-ID"

# Seconds that a browser may remember a preflight. A change of the allow-list takes that long to reach
# everybody; without it each publish of a page costs two requests.
MAX_AGE: Final = 600


class CorsSettings(Protocol):
    """What is needed of the settings."""

    @property
    def sse_cors_origins(self) -> Sequence[str]: ...


def cors_headers(settings: CorsSettings, origin: str | None, *, preflight: bool = False) -> dict[str, str]:
    """The headers to add to a response, for the request's Origin (None: it had none).

    `preflight`: the request is OPTIONS with ``Access-Control-Request-Method``. Nothing but ``Vary`` is added
    for an origin that is not on the list, and nothing at all when there is no list. ``Vary: Origin`` is there
    even without an Origin: else a cache would hand one page's answer to another.
    """
    allowed = tuple(settings.sse_cors_origins)
    if not allowed:
        return {}
    vary = "Origin"
    if preflight:
        vary += ", Access-Control-Request-Method, Access-Control-Request-Headers"
    headers = {"Vary": vary}
    if origin is None:
        return headers
    if is_allowed(origin, allowed):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    elif "*" in allowed:
        headers["Access-Control-Allow-Origin"] = "*"
    else:
        return headers
    if preflight:
        headers["Access-Control-Allow-Methods"] = ALLOW_METHODS
        headers["Access-Control-Allow-Headers"] = ALLOW_HEADERS
        headers["Access-Control-Max-Age"] = str(MAX_AGE)
    else:
        headers["Access-Control-Expose-Headers"] = EXPOSE_HEADERS
    return headers
