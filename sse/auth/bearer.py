"""The ways in which a request carries its key or token, as a list (RFC 6750 §2).

The lookup, the texts that tell clients what to send, CORS and the OpenAPI description all read ``SCHEMES``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from .decision import invalid_request

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

COOKIE: Final = "sse_token"
PARAMETER: Final = "access_token"

# RFC 6750 §2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=". None of it needs
# escaping in a header, a cookie or a log line, and log redaction can tell where such a value ends.
B64TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

# Longer than any of our tokens (a claim of 256 patterns of 20 characters takes 8,000). The worker limits headers
# anyway; this limits what we parse and hash for unauthenticated clients.
MAX_CREDENTIAL_CHARS: Final = 12_288


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to carry a credential.

    name: its name in the OpenAPI description.
    hint: tells a client what to send; "reading needs a token, as …".
    find: returns all values that a request carries this way.
    openapi: the Security Scheme Object (OpenAPI 3.1).
    header: the request header to allow in CORS, if pages of other origins may set it.
    reading_only: ignored for publishing.
    ambient: browsers add it whichever page makes the request, so publishing with it needs a check against CSRF.
    """

    name: str
    hint: str
    find: Callable[["Request"], list[str]]
    openapi: Mapping[str, str]
    header: str = ""
    reading_only: bool = False
    ambient: bool = False


class Credential(NamedTuple):
    """A key or token as presented, not yet verified."""

    value: str
    scheme: Scheme

    def __repr__(self) -> str:
        return f"Credential(***, {self.scheme.name})"  # keep it out of tracebacks and debug logs


def _in_header(request: "Request") -> list[str]:
    # RFC 9110 §11.1: the scheme is case-insensitive. Other schemes, such as Basic for a proxy, are not for us.
    # WSGI joins repeated headers with a comma, which B64TOKEN does not allow, so two headers are refused, not read
    # as one.
    scheme, _, value = request.environ.get("HTTP_AUTHORIZATION", "").strip(" \t").partition(" ")
    return [value.strip(" \t")] if scheme.lower() == "bearer" else []


def _in_query(request: "Request") -> list[str]:
    return request.args.getlist(PARAMETER) if request.environ.get("QUERY_STRING") else []


def _in_cookie(request: "Request") -> list[str]:
    return request.cookies.getlist(COOKIE) if request.environ.get("HTTP_COOKIE") else []


# The most deliberate first, the cookie last, because a browser adds it on its own.
SCHEMES: Final = (
    Scheme(
        "bearer",
        "Authorization: Bearer",
        _in_header,
        {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        header="Authorization",
    ),
    # An EventSource cannot set headers. A publisher can, and URLs end up in logs, histories and referrers
    # (RFC 9700 §4.3.2).
    Scheme(
        "query",
        f"?{PARAMETER}=",
        _in_query,
        {
            "type": "apiKey",
            "in": "query",
            "name": PARAMETER,
            "description": "For reading only, for clients that cannot set headers.",
        },
        reading_only=True,
    ),
    Scheme(
        "cookie",
        f"the cookie {COOKIE}",
        _in_cookie,
        {"type": "apiKey", "in": "cookie", "name": COOKIE},
        ambient=True,
    ),
)


# Those that may publish.
PUBLISHING_SCHEMES: Final = tuple(scheme for scheme in SCHEMES if not scheme.reading_only)


def find_credential(request: "Request", *, reading: bool) -> Credential | None:
    """Find the credential of this request; None if it has none.

    reading: look at the schemes for reading only, too.

    The same credential in several places counts by the first of SCHEMES. Different ones are ambiguous, and our lookup
    order must not decide between them (RFC 6750 §2: "Clients MUST NOT use more than one method").

    Raises AccessDenied (invalid_request) for malformed or differing credentials.
    """
    schemes = SCHEMES if reading else PUBLISHING_SCHEMES
    found = [Credential(value, scheme) for scheme in schemes for value in scheme.find(request)]
    for credential in found:
        if len(credential.value) > MAX_CREDENTIAL_CHARS or not B64TOKEN.fullmatch(credential.value):
            raise invalid_request("the credentials are empty, too long, or not a bearer token")
    if len(found) > 1 and len({credential.value for credential in found}) > 1:
        raise invalid_request("several different credentials in one request: use one way only")
    return found[0] if found else None


def what_to_send(*, reading: bool) -> str:
    """Name the schemes for an error text: "as Authorization: Bearer or the cookie sse_token"."""
    text = f"as {' or '.join(scheme.hint for scheme in (SCHEMES if reading else PUBLISHING_SCHEMES))}"
    if reading:
        return text
    return f"{text} ({', '.join(scheme.hint for scheme in SCHEMES if scheme.reading_only)} is for reading only)"
