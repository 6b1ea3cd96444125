"""Verifies and mints JSON Web Tokens.

A token needs a signature by one of our keys, with that key's own algorithm; ``exp``, because a token that is never
revoked (``revoked``) must expire, too; and the claim

    "sse": {"publish": ["orders", "user:*"], "subscribe": ["*"], "manage": ["orders"]}

``nbf`` and ``iat`` are checked if present, ``iss`` if SSE_JWT_ISSUER is set, ``aud`` if SSE_JWT_AUDIENCE is set. If
it is not set, a token that names an audience is refused (RFC 7519 §4.1.3).
"""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any, Final, NamedTuple

import jwt

from ..events.patterns import Patterns
from .algorithms import SUPPORTED
from .decision import AccessDenied, invalid_token
from .keys import Key
from .policy import MAX_PATTERNS

# Seconds that another machine's clock may run ahead of ours; applies to `nbf` and `iat`. `exp` has no leeway: a
# stream must end no later than its token. If we admitted one after that, we would have to close it at once, and the
# client would reconnect immediately.
LEEWAY: Final = 30

CLAIM: Final = "sse"

# Size of the cache of verified tokens; the oldest is evicted first. Their patterns take most of the memory.
MAX_KNOWN: Final = 512


class Claims(NamedTuple):
    """The claims of a verified token. ``expires_at`` and ``issued_at`` are in Unix seconds."""

    subject: str | None
    expires_at: float
    issued_at: float | None
    publish: Patterns
    subscribe: Patterns
    manage: Patterns


class _Verified(NamedTuple):
    """A verified token, the keys at that time, and ``since``: the later of ``nbf`` and ``iat``, Unix seconds."""

    claims: Claims
    keys: list[Key]
    since: int

    def holds(self, keys: list[Key], clock: float) -> bool:
        """True if the token would still verify. The keys must be the same objects: after any change, a different key
        may be the one that applies."""
        return (
            len(keys) == len(self.keys)
            and all(map(is_, keys, self.keys))
            and self.since <= clock + LEEWAY
            and self.claims.expires_at > clock - LEEWAY
        )


class TokenVerifier:
    """Verifies tokens, and caches those that verified.

    A publisher sends the same token with each event, and verifying it took a third of a publish (more with RS256 or
    ES256). So verified tokens are cached by digest until the keys change; expiry is checked each time.

    keys: called for each token, so that a rotation takes effect.
    issuers, audiences: the token must name one of them; empty: not checked (but see the module docstring on ``aud``).
    """

    def __init__(
        self,
        keys: Callable[[], Iterable[Key]],
        *,
        algorithms: Sequence[str] = SUPPORTED,
        issuers: Sequence[str] = (),
        audiences: Sequence[str] = (),
    ) -> None:
        self._keys = keys
        self._algorithms = frozenset(algorithms) & frozenset(SUPPORTED)
        self._issuers = tuple(issuers) or None
        self._audiences = tuple(audiences) or None
        self._known: dict[bytes, _Verified] = {}
        self._lock = threading.Lock()

    def verify(self, token: str, now: float | None = None) -> Claims:
        """Verify a token and return its claims.

        now: Unix seconds, for ``exp`` only; ``nbf`` and ``iat`` use the system clock.

        Raises AccessDenied (401, invalid_token). It explains faulty claims only if the signature is valid, so that
        a forger learns nothing else.
        """
        keys = list(self._keys())
        clock = time.time()
        now = clock if now is None else now
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None or not known.holds(keys, clock):
            known = self._verify(token, keys, now)
            with self._lock:
                self._known.pop(digest, None)
                if len(self._known) >= MAX_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[digest] = known
        elif known.claims.expires_at <= now:
            raise invalid_token("the token has expired")
        return known.claims

    def _verify(self, token: str, keys: list[Key], now: float) -> _Verified:
        claims = self._verified(token, keys)
        expires_at = _number(claims["exp"])
        if expires_at is None:
            raise invalid_token("the token's exp is not a number")
        if expires_at <= now:
            raise invalid_token("the token has expired")
        subject = claims.get("sub")
        grants = claims.get(CLAIM, {})
        if not isinstance(grants, dict):
            raise invalid_token("the token's sse claim is not an object")
        found = Claims(
            subject or None,
            expires_at,
            _number(claims.get("iat")),
            _patterns(grants.get("publish", [])),
            _patterns(grants.get("subscribe", [])),
            _patterns(grants.get("manage", [])),
        )
        return _Verified(found, keys, max(int(claims.get(name, 0)) for name in ("nbf", "iat")))

    def _verified(self, token: str, keys: list[Key]) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):
            raise invalid_token("neither a key nor a well-formed token", "key") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise invalid_token("the token's algorithm is not allowed here")
        for key in self._candidates(keys, algorithm, header.get("kid")):
            try:
                return self._decode(token, key)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                raise _explained(error) from None
        raise invalid_token("the token's signature is not by a key of this service")

    def _candidates(self, keys: list[Key], algorithm: str, kid: str | None) -> list[Key]:
        """Return the keys to try: those with the token's algorithm and ``kid``.

        If none has that ``kid``: those without a ``kid`` (a PEM file has none). If the token has no ``kid``: all of
        its algorithm.
        """
        fitting = [key for key in keys if key.algorithm == algorithm]
        if kid is None:
            return fitting
        return [key for key in fitting if key.kid == kid] or [key for key in fitting if key.kid is None]

    def _decode(self, token: str, key: Key) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.verifier,
            algorithms=[key.algorithm],  # the key's, never the token's (RFC 8725 §3.1)
            issuer=self._issuers,
            audience=self._audiences,
            leeway=LEEWAY,
            options={"require": ["exp"], "enforce_minimum_key_length": True},
        )


# Constants only, so that no part of the token gets into a response. The first matching class gives the reason.
_EXPLANATIONS: Final[Sequence[tuple[type[Exception], str]]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not yet valid"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is by another issuer"),
    (jwt.MissingRequiredClaimError, "the token lacks exp, or an iss or aud that is asked for"),
)


def _explained(error: Exception) -> AccessDenied:
    for kind, reason in _EXPLANATIONS:
        if isinstance(error, kind):
            return invalid_token(reason)
    return invalid_token("the token is malformed")


def _number(value: object) -> float | None:
    """Return a NumericDate as a finite float, else None (RFC 7519 §2)."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _patterns(value: object) -> Patterns:
    if not isinstance(value, list) or not all(isinstance(pattern, str) for pattern in value):
        raise invalid_token("the token's sse claim holds something else than lists of patterns")
    if len(value) > MAX_PATTERNS:
        raise invalid_token(f"the token's sse claim holds more than {MAX_PATTERNS} patterns in a list")
    return Patterns(value)


def mint(
    key: Key,
    *,
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    manage: Sequence[str] = (),
    ttl: float,
    subject: str | None = None,
    issuer: str | None = None,
    audience: str | None = None,
    now: float | None = None,
) -> str:
    """Mint a token for these patterns.

    ttl: lifetime in seconds, from ``now`` (Unix seconds; default: the system clock).

    Raises ValueError if the key can only verify.
    """
    if key.signer is None:
        raise ValueError("this key can verify tokens, not sign them: the private key is needed")
    issued = int(time.time() if now is None else now)
    lists = {"publish": list(publish), "subscribe": list(subscribe)}
    if manage:
        lists["manage"] = list(manage)
    claims: Mapping[str, Any] = {
        "iat": issued,
        "exp": issued + int(ttl),
        CLAIM: lists,
        "sub": subject,
        "iss": issuer,
        "aud": audience,
    }
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        key.signer,
        algorithm=key.algorithm,
        headers={"kid": key.kid} if key.kid else None,
    )
