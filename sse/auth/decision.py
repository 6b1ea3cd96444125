"""What an access check comes to: a grant, or a refusal that can be answered as it is.

Refusals follow RFC 6750 ("Bearer Token Usage") §3: 401 carries ``WWW-Authenticate: Bearer`` with an error
code, 403 with ``insufficient_scope`` when a good token covers too little. A refusal that no token would
change (a foreign Origin, publishing that is closed) is a plain 403, without a challenge that would send a
client looking for one.
"""

from typing import Final, Literal, NamedTuple

REALM: Final = "headwater"

ErrorCode = Literal["invalid_request", "invalid_token", "insufficient_scope"]


class Grant(NamedTuple):
    """Who was let in, and until when.

    `subject` names the holder in logs and is what the publish rate is counted by; it is never the secret
    itself. `expires_at` is in unix seconds: a stream that was opened with this grant must end by then. None:
    never.
    """

    subject: str
    expires_at: float | None = None


# key: no credentials, or ones that are no key and no token; token: a token that is not good for this; origin: not from
# this machine, or from another site's page; closed: nobody may publish; invalid: nobody may do this.
REASONS: Final = ("key", "token", "origin", "closed", "invalid")


class AccessDenied(Exception):
    """The answer to a request that may not do what it asks. `status` is 401 or 403.

    `detail` is for the problem document (RFC 9457); it contains neither the credential nor any
    header that the client sent. `headers` go into the response as they are. `reason` is what refused publishes
    are counted by, one of REASONS.
    """

    def __init__(
        self, status: int, title: str, detail: str, headers: dict[str, str] | None = None, reason: str = "token"
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers or {}


class BadAuthSetting(ValueError):
    """A setting about access that the service must not start with. `setting` is its name.

    The message names the setting and what is allowed, and shows no key material.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting


def challenge(code: ErrorCode | None = None, description: str = "") -> dict[str, str]:
    """The ``WWW-Authenticate`` header (RFC 6750 §3). `description` is one of our own constants.

    The grammar of error_description leaves out the quote, the backslash and everything but printable ASCII:
    text from a request must never get here, and an assertion keeps it so.
    """
    value = f'Bearer realm="{REALM}"'
    if code is not None:
        assert description.isascii() and description.isprintable(), description
        assert '"' not in description and "\\" not in description, description
        value += f', error="{code}", error_description="{description}"'
    return {"WWW-Authenticate": value}


def credentials_missing(detail: str) -> AccessDenied:
    """401 for a request without any credentials: a challenge without an error code (RFC 6750 §3.1)."""
    return AccessDenied(401, "Credentials needed", detail, challenge(), "key")


def invalid_request(description: str) -> AccessDenied:
    """401 for credentials that come malformed, or in several ways that contradict each other (RFC 6750
    §2)."""
    headers = challenge("invalid_request", description)
    return AccessDenied(401, "Credentials unclear", description, headers, "key")


def invalid_token(description: str, reason: str = "token") -> AccessDenied:
    """401 for a key or token that is wrong, expired, or not for this service."""
    return AccessDenied(401, "Credentials not accepted", description, challenge("invalid_token", description), reason)


def insufficient_scope(description: str, detail: str = "") -> AccessDenied:
    """403 for good credentials that do not cover this request. `detail` may name the channel."""
    headers = challenge("insufficient_scope", description)
    return AccessDenied(403, "Not covered by these credentials", detail or description, headers)


def forbidden(title: str, detail: str, reason: str) -> AccessDenied:
    """403 that no credentials would change."""
    return AccessDenied(403, title, detail, reason=reason)
