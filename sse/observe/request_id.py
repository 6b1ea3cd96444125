"""Request ids: what ties an answer, its log line and the caller's own log together.

An id is a name for logs and no authority: whoever calls chooses it, and may choose one that somebody else has used.
So all that is asked of it is that it cannot harm a log.
"""

from __future__ import annotations

import random
import re
from typing import Any, Final

HEADER: Final = "X-Request-ID"
KEY: Final = "sse.request_id"  # where the environ has it

# UUIDs, hex, base64 and the forms of the usual proxies; nothing that could end a line, a field or a quotation. At most
# 64 characters: longer than any of those, and shorter than a signed JSON Web Token, which is not to get into a log.
_GIVEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,63}")


def request_id(environ: dict[str, Any]) -> str:
    """This request's id: the caller's ``X-Request-ID`` if it is a plain one, else a new one; the same at each call."""
    known: str | None = environ.get(KEY)
    if known is None:
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and _GIVEN.fullmatch(given):
            known = given
        else:
            # No system call, as uuid4 would make for each request. Python seeds this generator anew in each worker. A
            # counter would be as cheap, and tell every client how many others there are.
            known = f"{random.getrandbits(64):016x}"
        environ[KEY] = known
    return known
