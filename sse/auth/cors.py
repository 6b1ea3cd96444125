"""Response headers for requests from pages of other origins: the Fetch standard's CORS protocol.

Origins on the allow-list may send credentials (EventSource with ``withCredentials`` and the cookie). ``*`` on the
list lets every page read what anybody may read: we answer ``*`` without Allow-Credentials, since browsers refuse the
two together (https://fetch.spec.whatwg.org/#cors-protocol-and-credentials). To echo the Origin instead would defeat
that rule.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from .bearer import SCHEMES
from .origin import is_allowed

# What our routes accept. A wildcard would not cover Authorization. A traced page sends traceparent and tracestate with
# every request; if they were not allowed, the browser would block them all.
ALLOW_METHODS: Final = "GET, HEAD, POST, DELETE"
ALLOW_HEADERS: Final = ", ".join(
    [
        *(scheme.header for scheme in SCHEMES if scheme.header),
        *("Cache-Control", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"),
        *("traceparent", "tracestate"),
    ]
)
EXPOSE_HEADERS: Final = "Retry-After, WWW-Authenticate, X-Request-ID"

# Seconds that a browser may remember a preflight; without it, each publish from a page costs two requests. A change of
# the allow-list takes as long to reach everybody.
MAX_AGE: Final = 600


class CorsSettings(Protocol):
    """The setting used here."""

    @property
    def sse_cors_origins(self) -> Sequence[str]: ...


def cors_headers(settings: CorsSettings, origin: str | None, *, preflight: bool = False) -> dict[str, str]:
    """Return the headers to add to a response; none without an allow-list, only ``Vary`` for an origin not on it.

    origin: the request's Origin header, or None. The response varies by Origin even if there is none; otherwise a
    cache could serve one page's response to another.
    preflight: the request is OPTIONS with ``Access-Control-Request-Method``.
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
