"""Where a request carries its key or token: a header, a cookie, or the query (RFC 6750 §2)."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

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

Way = Literal["header", "query", "cookie"]


class Credential(NamedTuple):
    """A key or token as presented, not yet verified."""

    value: str
    way: Way

    def __repr__(self) -> str:
        return f"Credential(***, {self.way})"  # keep it out of tracebacks and debug logs


def find_credential(request: "Request", *, reading: bool) -> Credential | None:
    """Find the credential of this request; None if it has none.

    reading: accept one in the query, too. An EventSource cannot set headers. A publisher can, and URLs end up in
    logs, histories and referrers, so we ignore a publisher's token there (RFC 9700 §4.3.2).

    The same credential in several places counts as the most deliberate: the header, then the query, then the cookie,
    which a browser adds on its own. Different ones are ambiguous, and our lookup order must not decide between them
    (RFC 6750 §2: "Clients MUST NOT use more than one method"). Ignores schemes other than Bearer, such as Basic for
    a proxy.

    Raises AccessDenied (invalid_request) for malformed or differing credentials.
    """
    environ = request.environ
    found = _from_header(environ)
    if reading and environ.get("QUERY_STRING"):
        found += [Credential(value, "query") for value in request.args.getlist(PARAMETER)]
    if environ.get("HTTP_COOKIE"):
        found += [Credential(value, "cookie") for value in request.cookies.getlist(COOKIE)]
    for credential in found:
        if len(credential.value) > MAX_CREDENTIAL_CHARS or not B64TOKEN.fullmatch(credential.value):
            raise invalid_request("the credentials are empty, too long, or not a bearer token")
    if len(found) > 1 and len({credential.value for credential in found}) > 1:
        raise invalid_request("several different credentials in one request: use one way only")
    return found[0] if found else None


def _from_header(environ: Mapping[str, Any]) -> list[Credential]:
    # RFC 9110 §11.1: the scheme is case-insensitive. WSGI joins repeated headers with a comma, which B64TOKEN
    # does not allow, so two headers are refused, not read as one.
    scheme, _, value = environ.get("HTTP_AUTHORIZATION", "").strip(" \t").partition(" ")
    return [Credential(value.strip(" \t"), "header")] if scheme.lower() == "bearer" else []
