"""Decides whether a request may publish to some channels, read them, or manage them. The views call only this.

Combines the rule (``policy``), the credential (``bearer``), the key (``publish_key``) or token (``tokens``) and, for
requests without a key, their origin (``origin``).
"""

import enum
import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from werkzeug.wrappers import Request

from ..events.model import CHANNEL_PATTERN
from ..events.names import CANARY_CHANNEL, STATS_CHANNEL
from ..events.patterns import Patterns, check_pattern, is_reserved
from ..runtime.redaction import one_line
from .address import address_bucket, client_address, parse_networks
from .bearer import Credential, find_credential, what_to_send
from .configure import AuthSettings, Source, checked, publish_keys, token_keys, token_verifier
from .decision import BadAuthSetting, Grant, credentials_missing, forbidden, insufficient_scope, invalid_token
from .origin import is_allowed, is_own, local_publish_refusal, parse_allow_list
from .policy import Publishing, Reading, Rule, decide
from .publish_key import matches
from .revoked import MAX_SUBJECT_CHARS, Revoked, subject_name

if TYPE_CHECKING:
    from .keys import Key
    from .tokens import Claims

# They change nothing (RFC 9110 §9.2.1).
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

# The subject of all holders of the publish key. Not a fingerprint: a log must not help to guess the key.
KEY_SUBJECT: Final = "publish-key"

_HOW_TO_OPEN: Final = (
    "publishing is closed, because no key is set and other machines can reach this service (or it cannot tell): set"
    " SSE_PUBLISH_KEY, or SSE_JWT_KEY, or SSE_JWKS_FILE with SSE_JWT_ALGORITHMS; SSE_AUTH=none lets everybody publish"
)


class _Right(enum.StrEnum):
    """What needs the publish key, or a token that covers the channels. The value is for sentences."""

    PUBLISH = "publishing"
    MANAGE = "managing"

    def of(self, claims: "Claims") -> Patterns:
        return claims.publish if self is _Right.PUBLISH else claims.manage

    @property
    def verb(self) -> str:
        return "publishing to" if self is _Right.PUBLISH else "managing"


class Authenticator:
    """Decides whether requests may publish, read or manage. One per app; thread-safe.

    loopback_only: returns True if *all* addresses that the process really listens on are loopback addresses; False if
    they are unknown. Called for each publish that depends on it, so it must be cheap.
    clock: returns Unix seconds.
    monotonic: returns seconds from any origin, for key files.
    revoked: the subjects whose earlier tokens are refused; without it, nobody's are.
    before: the predecessor, when settings change. Its key files stay in use, and replaced keys stay valid for a while.

    Raises BadAuthSetting for unsafe settings: a short key, an unreadable file, an algorithm that does not fit, a key
    together with SSE_AUTH=none.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        loopback_only: Callable[[], bool],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        revoked: Revoked | None = None,
        before: "Authenticator | None" = None,
    ) -> None:
        self._loopback_only = loopback_only
        self._clock = clock
        self._revoked = revoked
        self._publish_keys: list[Source[bytes]] = publish_keys(
            settings, monotonic, before._publish_keys if before else ()
        )
        self._token_keys: list[Source[Key]] = token_keys(
            settings, monotonic, before._token_keys if before else ()
        )
        self._tokens = token_verifier(settings, self._token_keys)
        self._on_loopback, self._reachable = (self._decide(settings.sse_auth, here) for here in (True, False))
        self._same_everywhere = self._on_loopback == self._reachable
        self._origins = tuple(settings.sse_cors_origins)
        checked("SSE_CORS_ORIGINS", parse_allow_list, self._origins)
        self._proxies = checked("SSE_TRUSTED_PROXIES", parse_networks, tuple(settings.sse_trusted_proxies))
        self._public = Patterns(
            checked("SSE_PUBLIC_CHANNELS", check_pattern, pattern) for pattern in settings.sse_public_channels
        )

    def _decide(self, auth: str, loopback: bool) -> Rule:
        key, jwt = bool(self._publish_keys), self._tokens is not None
        if auth == "none" and (key or jwt):
            raise BadAuthSetting("SSE_AUTH", "none cannot be used with a key: it would let everybody in despite it")
        try:
            return decide(auth=auth, key=key, jwt=jwt, loopback=loopback)
        except LookupError:
            raise BadAuthSetting("SSE_AUTH", "it must be auto or none") from None

    # -- Publishing and managing

    def publishing(self) -> Publishing:
        """Return what a publisher must present now."""
        if self._same_everywhere:
            return self._reachable.publishing
        return (self._on_loopback if self._loopback_only() else self._reachable).publishing

    def may_publish(self, request: Request, channels: Collection[str]) -> Grant:
        """Return a grant to publish to all of ``channels``. Raises AccessDenied.

        Without channels: checks whether this request may publish at all, before its body is read. A batch names its
        channels in the body, so it needs a second check.
        """
        return self._may_change(request, channels, _Right.PUBLISH)

    def may_manage(self, request: Request, channels: Collection[str]) -> Grant:
        """Return a grant to erase and list all of ``channels`` (names and patterns), and to end streams of them.

        The publish key may manage; so may everybody who may publish without a credential. Raises AccessDenied.
        """
        return self._may_change(request, channels, _Right.MANAGE)

    def _may_change(self, request: Request, channels: Collection[str], right: _Right) -> Grant:
        match self.publishing():
            case Publishing.OPEN:
                return self._change_anonymously(request, channels)
            case Publishing.LOCAL:
                refusal = local_publish_refusal(request.environ, self._origins)
                if refusal is not None:
                    raise forbidden(
                        f"{right.capitalize()} needs a key",
                        f"without one, only direct requests from this machine may publish or manage: {refusal}",
                        "origin",
                    )
                return self._change_anonymously(request, channels)
            case Publishing.CLOSED:
                raise forbidden(f"{right.capitalize()} is closed", _HOW_TO_OPEN, "closed")
            case Publishing.KEY | Publishing.TOKEN | Publishing.KEY_OR_TOKEN:
                return self._change_by_credential(request, channels, right)

    def _change_anonymously(self, request: Request, channels: Collection[str]) -> Grant:
        _no_reserved(channels)
        return self.anonymous(request)

    def _change_by_credential(self, request: Request, channels: Collection[str], right: _Right) -> Grant:
        credential = find_credential(request, reading=False)
        if credential is None:
            raise credentials_missing(f"{right} needs a key or a token, {what_to_send(reading=False)}")
        # A browser sends no Origin with a page's own GET, which changes nothing.
        if credential.scheme.ambient and request.method not in _SAFE_METHODS:
            self._check_cross_site(request, right)
        if self._is_publish_key(credential):
            _no_reserved(channels)
            return Grant(KEY_SUBJECT)
        claims = self._claims(credential)
        patterns = right.of(claims)
        missing = patterns.first_missing(channels)
        if missing is not None or not patterns:
            raise insufficient_scope(f"the token does not allow {right} here", _naming(right.verb, missing))
        return _grant(claims, credential)

    def _check_cross_site(self, request: Request, right: _Right) -> None:
        """Refuse other sites' pages (CSRF)."""
        origin = request.headers.get("Origin")
        if origin is None or not (
            is_allowed(origin, self._origins) or is_own(origin, request.environ, self._proxies)
        ):
            raise forbidden(
                "Origin not allowed",
                f"{right} with the cookie needs an Origin header that is this service's own or is in"
                " SSE_CORS_ORIGINS (or the token as Authorization: Bearer)",
                "origin",
            )

    # -- Reading

    def may_subscribe(self, request: Request, channels: Collection[str]) -> Grant:
        """Return a grant to read all of ``channels``, names and patterns. Raises AccessDenied.

        Ignores credentials where everybody may read: there, a bad token does no harm, and a good one does not end
        the stream.
        """
        guarded = [channel for channel in channels if channel != CANARY_CHANNEL]
        if self._reachable.reading is Reading.PUBLIC:
            _no_reserved([channel for channel in guarded if channel != STATS_CHANNEL])
            return self.anonymous(request)._replace(public=True)
        guarded = [channel for channel in guarded if self._public.first_missing((channel,)) is not None]
        if channels and not guarded:
            return self.anonymous(request)._replace(public=True)
        credential = find_credential(request, reading=True)
        if credential is None:
            raise credentials_missing(f"reading this needs a token, {what_to_send(reading=True)}")
        if self._is_publish_key(credential):
            raise insufficient_scope("the publish key does not allow reading")
        claims = self._claims(credential)
        missing = claims.subscribe.first_missing(guarded)
        if missing is not None or not claims.subscribe:
            raise insufficient_scope("the token does not allow reading this", _naming("reading", missing))
        return _grant(claims, credential)

    # -- Parts

    def startup_line(self) -> str:
        """Return a log line for startup: who may publish and read now."""
        publishing = self.publishing()
        hint = f"; {_HOW_TO_OPEN}" if publishing is Publishing.CLOSED else ""
        return f"publishing needs {publishing.value}; reading needs {self._reachable.reading.value}{hint}"

    def client_address(self, environ: Mapping[str, Any]) -> str:
        """Return the client's address, using SSE_TRUSTED_PROXIES; see ``address.client_address``."""
        return client_address(environ, self._proxies)

    def anonymous(self, request: Request) -> Grant:
        """Return the grant of a request without credentials: it counts by its client's address."""
        return Grant(f"address:{address_bucket(self.client_address(request.environ))}")

    def _is_publish_key(self, credential: Credential) -> bool:
        digests = [known for source in self._publish_keys for known in source()]
        return matches(credential.value, digests)

    def _claims(self, credential: Credential) -> "Claims":
        if self._tokens is None:
            raise invalid_token("this is not the key", "key")
        claims = self._tokens.verify(credential.value, self._clock())
        if claims.subject and self._revoked is not None and self._revoked.refuses(claims.subject, claims.issued_at):
            raise invalid_token("the token was revoked")
        return claims


def _no_reserved(channels: Collection[str]) -> None:
    if [channel for channel in channels if is_reserved(channel)]:
        raise forbidden("Reserved channel", "channels whose names begin with _ are the service's own", "invalid")


def _grant(claims: "Claims", credential: Credential) -> Grant:
    if claims.subject:
        subject = f"token:{one_line(claims.subject, MAX_SUBJECT_CHARS)}"
        return Grant(subject, claims.expires_at, subject_name(claims.subject))
    # No subject: count each token separately.
    return Grant(f"token#{hashlib.sha256(credential.value.encode()).hexdigest()[:16]}", claims.expires_at)


def _naming(action: str, channel: str | None) -> str:
    """Return the detail of a refusal. Names only valid channels, never arbitrary text from the request."""
    known = channel is not None and (channel == "*" or CHANNEL_PATTERN.fullmatch(channel.removesuffix("*")))
    return f"the token's sse claim does not cover {action} {channel if known else 'this'}"
