"""The cache of verified tokens never makes a token valid that would not verify."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sse.auth.decision import AccessDenied
from sse.auth.keys import SUPPORTED, Key, parse_jwks, parse_key
from sse.auth.tokens import LEEWAY, TokenVerifier

from .fakes import OTHER_SECRET, SECRET, claims, hs256, jwk, jwks
from .test_tokens import refusal


class Counting(TokenVerifier):
    """A verifier that counts signature checks."""

    verified = 0

    def _decode(self, token: str, key: Key) -> dict[str, Any]:
        self.verified += 1
        return super()._decode(token, key)


def counting() -> tuple[Counting, list[Key]]:
    keys = list(parse_key(SECRET.encode(), allowed=SUPPORTED))
    return Counting(lambda: keys), keys


def test_a_verified_token_is_not_verified_again() -> None:
    checker, _ = counting()
    token = hs256(claims(sub="anna", publish=["a"]))
    first = checker.verify(token)
    assert checker.verify(token) == first and checker.verified == 1
    # Another signature, or other unused bits at its end (base64url leaves two), makes it another token.
    for other in (token[:-1] + ("A" if token[-1] != "A" else "B"), token + "A", token[:-1]):
        refusal(checker, other)
    assert checker.verify(token) == first


def test_a_cached_token_expires() -> None:
    checker, _ = counting()
    body = claims()
    token = hs256(body)
    checker.verify(token, body["exp"] - 0.1)
    with pytest.raises(AccessDenied, match="the token has expired"):
        checker.verify(token, body["exp"])
    checker.verify(token, body["exp"] - 0.1)
    assert checker.verified == 1


def test_a_change_of_the_keys_verifies_a_cached_token_again() -> None:
    checker, keys = counting()
    token = hs256(claims(), kid="a")
    checker.verify(token)
    # Now a key has the id that the token names, so only that key may verify it.
    keys += parse_jwks(jwks(jwk(OTHER_SECRET, kid="a")).encode(), allowed=SUPPORTED)
    assert "signature" in refusal(checker, token)
    del keys[1]
    checker.verify(token)
    checker.verify(token)
    keys[:] = parse_key(OTHER_SECRET.encode(), allowed=SUPPORTED)
    assert "signature" in refusal(checker, token)
    del keys[0]
    assert "signature" in refusal(checker, token)


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_cached_token_is_not_valid_before_its_time_if_the_clock_is_set_back(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker, _ = counting()
    now = int(time.time())
    token = hs256({**claims(), name: now + LEEWAY - 5})
    checker.verify(token, now)
    monkeypatch.setattr("sse.auth.tokens.time.time", lambda: now - 10.0)
    checker.verify(token, now)
    assert checker.verified == 2, "whether it is good is not for the memory to say"


def test_a_cached_token_that_has_expired_by_the_clock_is_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that passes an earlier time gets the same result as without the cache."""
    checker, _ = counting()
    body = claims()
    token = hs256(body)
    checker.verify(token)
    monkeypatch.setattr("sse.auth.tokens.time.time", lambda: body["exp"] + LEEWAY)
    checker.verify(token, body["exp"] - 1)
    assert checker.verified == 2


def test_the_cache_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sse.auth.tokens.MAX_KNOWN", 3)
    checker, _ = counting()
    tokens = [hs256(claims(sub=str(number))) for number in range(5)]
    for token in tokens:
        checker.verify(token)
    assert len(checker._known) == 3
    checker.verify(tokens[4])
    assert checker.verified == 5
    checker.verify(tokens[0])
    assert checker.verified == 6 and len(checker._known) == 3


def test_a_refused_token_is_not_cached() -> None:
    checker, _ = counting()
    for token in (hs256(claims(), OTHER_SECRET), hs256(claims(ttl=-5)), hs256(claims(sse=3))):
        refusal(checker, token)
    assert not checker._known
