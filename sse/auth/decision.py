"""The result of an access check: a grant, or a refusal that is ready to be sent.

Refusals follow RFC 6750 ("Bearer Token Usage") §3: 401 carries ``WWW-Authenticate: Bearer`` with an error
code, 403 has ``insufficient_scope`` if a valid token covers too little. If no token would help (a foreign Origin,
closed publishing), we send a plain 403 without a challenge, so that the client does not look for a token.
"""

from typing import Final, Literal, NamedTuple

REALM: Final = "headwater"

ErrorCode = Literal["invalid_request", "invalid_token", "insufficient_scope"]


class Grant(NamedTuple):
    """Permission for one request.

    subject: identifies the holder in logs and for the publish rate; never the secret itself.
    expires_at: Unix seconds by which a stream opened with this grant must end; None: no end.
    owner: who it belongs to, a ``revoked.subject_name``, so that it can be taken back; "" if nobody is known.
    public: everybody has it, whoever asks.
    """

    subject: str
    expires_at: float | None = None
    owner: str = ""
    public: bool = False


# Why a request was refused. key: it has no key and no token; token: its token does not allow this; origin: it is from
# another machine, or another site's page; closed: nobody may publish; app: the app's own function refuses it; invalid:
# nobody may do this.
REASONS: Final = ("key", "token", "origin", "closed", "app", "invalid")


class AccessDenied(Exception):
    """A request is not allowed; holds the response.

    status: 401 or 403.
    detail: for the problem document (RFC 9457); contains neither the credential nor any header of the client.
    headers: sent unchanged.
    reason: one of REASONS, by which refused publishes are counted.
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
    """The service must not start with this access setting. ``setting`` is its name.

    The message names the setting and what is allowed, without key material.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting


def challenge(code: ErrorCode | None = None, description: str = "") -> dict[str, str]:
    """Return the ``WWW-Authenticate`` header (RFC 6750 §3).

    description: one of our own constants, never text from a request. The grammar of error_description allows only
    printable ASCII without quotes and backslashes, which we assert.
    """
    value = f'Bearer realm="{REALM}"'
    if code is not None:
        assert description.isascii() and description.isprintable(), description
        assert '"' not in description and "\\" not in description, description
        value += f', error="{code}", error_description="{description}"'
    return {"WWW-Authenticate": value}


def credentials_missing(detail: str) -> AccessDenied:
    """401 for a request without credentials. Its challenge has no error code (RFC 6750 §3.1)."""
    return AccessDenied(401, "Credentials needed", detail, challenge(), "key")


def invalid_request(description: str) -> AccessDenied:
    """401 for malformed credentials, or different ones in one request (RFC 6750 §2)."""
    headers = challenge("invalid_request", description)
    return AccessDenied(401, "Credentials unclear", description, headers, "key")


def invalid_token(description: str, reason: str = "token") -> AccessDenied:
    """401 for a key or token that is wrong, expired, or not for this service."""
    return AccessDenied(401, "Credentials not accepted", description, challenge("invalid_token", description), reason)


def insufficient_scope(description: str, detail: str = "") -> AccessDenied:
    """403 for valid credentials that do not cover this request. ``detail`` may name the channel."""
    headers = challenge("insufficient_scope", description)
    return AccessDenied(403, "Not covered by these credentials", detail or description, headers)


def forbidden(title: str, detail: str, reason: str) -> AccessDenied:
    """403 where no credentials would help."""
    return AccessDenied(403, title, detail, reason=reason)
