"""JSON Web Tokens: what they must say to be believed, and minting them.

A token needs a signature by one of our keys, by that key's own algorithm; `exp`, since a token that cannot be
taken back must end by itself; and the claim

    "sse": {"publish": ["orders", "user:*"], "subscribe": ["*"]}

`nbf` and `iat` are respected if there. `iss` is checked when SSE_JWT_ISSUER is set. `aud` is checked when
SSE_JWT_AUDIENCE is set; a token that names an audience while none is set is refused, as RFC 7519 §4.1.3
demands.
"""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from typing import Any, Final, NamedTuple

import jwt

from .algorithms import SUPPORTED
from .decision import AccessDenied, invalid_token
from .keys import Key
from .policy import MAX_PATTERNS, Patterns

# Seconds that another machine's clock may run ahead of ours: `nbf` and `iat` of a token that was made just
# now. `exp` has none: a stream must end no later than its token, and one that was let in after the end would
# have to be closed at once, and would come straight back.
LEEWAY: Final = 30

CLAIM: Final = "sse"

# Tokens that are known to be good, the first of which is forgotten first. Their patterns are what takes room.
MAX_KNOWN: Final = 512


class Claims(NamedTuple):
    """What a verified token says. `expires_at` is in unix seconds."""

    subject: str | None
    expires_at: float
    publish: Patterns
    subscribe: Patterns


class _Verified(NamedTuple):
    """A token that was found good, the keys that there were, and the second before which it is not (`nbf`, `iat`)."""

    claims: Claims
    keys: list[Key]
    since: int

    def holds(self, keys: list[Key], clock: float) -> bool:
        """Would it be found good again? The very same keys have to be there: with one more or one less, another may be
        the one to ask."""
        return (
            len(keys) == len(self.keys)
            and all(map(is_, keys, self.keys))
            and self.since <= clock + LEEWAY
            and self.claims.expires_at > clock - LEEWAY
        )


class TokenVerifier:
    """Verifies tokens. `keys` is asked each time, so that rotation is seen.

    A publisher shows the same token with each event, and to verify it took a third of a publish (with RS256 or ES256
    more). So a token that was found good is known by its digest while no key comes or goes; its end is looked at each
    time.

    `issuers` and `audiences`: one of them must be in the token; empty: not checked (but see the module's
    text).
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
        """The token's claims. `now` in unix seconds is for `exp`; `nbf` and `iat` go by the clock.

        Raises AccessDenied (401, invalid_token). What is wrong inside a token is only said once its signature
        was found good: whoever cannot sign learns nothing but that.
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
            _patterns(grants.get("publish", [])),
            _patterns(grants.get("subscribe", [])),
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
        """The keys of the token's algorithm; of these, if any has the token's `kid`, only those.

        Otherwise those without a `kid` (a PEM file has none), or all, if the token does not name one.
        """
        fitting = [key for key in keys if key.algorithm == algorithm]
        if kid is None:
            return fitting
        return [key for key in fitting if key.kid == kid] or [key for key in fitting if key.kid is None]

    def _decode(self, token: str, key: Key) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.verifier,
            algorithms=[key.algorithm],  # by the key, never by the token (RFC 8725 §3.1)
            issuer=self._issuers,
            audience=self._audiences,
            leeway=LEEWAY,
            options={"require": ["exp"], "enforce_minimum_key_length": True},
        )


# Constants only: nothing of the token gets into an answer or a header. The first class that fits is the
# reason.
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
    """A NumericDate (RFC 7519 §2) that a clock can be compared with, or None."""
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
    ttl: float,
    subject: str | None = None,
    issuer: str | None = None,
    audience: str | None = None,
    now: float | None = None,
) -> str:
    """A token for these patterns that ends `ttl` seconds from `now` (unix seconds; default: the clock).

    Raises ValueError for a key that can only verify.
    """
    if key.signer is None:
        raise ValueError("this key can verify tokens, not sign them: the private key is needed")
    issued = int(time.time() if now is None else now)
    claims: Mapping[str, Any] = {
        "iat": issued,
        "exp": issued + int(ttl),
        CLAIM: {"publish": list(publish), "subscribe": list(subscribe)},
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
