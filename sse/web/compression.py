"""Whether a stream is compressed: what the client accepts, what SSE_COMPRESS says, and who may read the stream."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from ..auth.decision import Grant
from ..settings import Settings

# Something in front of the service, or a hook of the app, may decide by these who reads what.
_CREDENTIALS: Final = ("HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_COOKIE")


def wants_gzip(settings: Settings, environ: dict[str, Any], grant: Grant) -> bool:
    """Tell whether a stream is to be compressed, if its connection is taken over."""
    if settings.sse_compress == "off" or not accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
        return False
    return settings.sse_compress == "on" or (grant.public and not has_credentials(environ))


def has_credentials(environ: dict[str, Any]) -> bool:
    """Tell whether a request has anything by which somebody may decide what it may read."""
    return any(name in environ for name in _CREDENTIALS) or "access_token" in unquote(environ.get("QUERY_STRING", ""))


@lru_cache(maxsize=128)
def accepts_gzip(header: str) -> bool:
    """Tell whether an Accept-Encoding header accepts gzip, and no less than identity (RFC 9110 §12.5.3)."""
    accept = parse_accept_header(header, Accept)
    if any(name.lower() == "gzip" and not weight for name, weight in accept):
        return False  # also if another part of the header allows it
    return accept.quality("gzip") > 0 and accept.quality("gzip") >= accept.quality("identity")
