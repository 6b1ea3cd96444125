"""Request ids, which tie an answer to its log line and to the caller's own log.

An id proves nothing: the caller chooses it, and may choose one that somebody else has used. So it is only checked for
characters that could harm a log.
"""

from __future__ import annotations

import random
import re
from typing import Any, Final

from .environ import REQUEST_ID

HEADER: Final = "X-Request-ID"

# Allows UUIDs, hex, base64 and the forms of the usual proxies, but nothing that could end a line, a field or a quoted
# text. 64 characters are enough for these, and too few for a signed JSON Web Token, which must not reach a log.
GIVEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,63}")


def request_id(environ: dict[str, Any]) -> str:
    """Return this request's id: the caller's ``X-Request-ID`` if well-formed, else a new one; the same at each call."""
    known: str | None = environ.get(REQUEST_ID)
    if known is None:
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and GIVEN.fullmatch(given):
            known = given
        else:
            known = new_request_id()
        environ[REQUEST_ID] = known
    return known


def new_request_id() -> str:
    """Return a random id."""
    # Unlike uuid4, this makes no system call. Python reseeds the generator in each worker. A counter would be as cheap,
    # but would tell every client how many others there are.
    return f"{random.getrandbits(64):016x}"
