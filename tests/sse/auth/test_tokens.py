"""Verifying and minting tokens."""

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sse.auth.algorithms import SUPPORTED
from sse.auth.decision import AccessDenied
from sse.auth.keys import Key, parse_jwks, parse_key
from sse.auth.policy import MAX_PATTERNS
from sse.auth.tokens import LEEWAY, TokenVerifier, mint

from .fakes import (
    OTHER_SECRET,
    SECRET,
    b64url,
    claims,
    ec_key,
    ed_key,
    eddsa,
    es256,
    hs256,
    jwk,
    jwks,
    private_pem,
    public_pem,
    rs256,
    rsa_key,
    signed,
)


def verifier(*keys: str, **more: Any) -> TokenVerifier:
    """Build a verifier for keys as a setting holds them."""
    parsed = [key for text in keys for key in parse_key(text.encode(), allowed=SUPPORTED)]
    return TokenVerifier(lambda: parsed, **more)


def refusal(checker: TokenVerifier, token: str) -> str:
    with pytest.raises(AccessDenied) as denied:
        checker.verify(token)
    assert denied.value.status == 401
    assert 'error="invalid_token"' in denied.value.headers["WWW-Authenticate"]
    return denied.value.detail


@pytest.mark.parametrize(
    ("key", "token"),
    [
        pytest.param(lambda: SECRET, lambda body: hs256(body), id="HS256"),
        pytest.param(lambda: public_pem(rsa_key()), lambda body: rs256(body, rsa_key()), id="RS256"),
        pytest.param(lambda: public_pem(ec_key()), lambda body: es256(body, ec_key()), id="ES256"),
        pytest.param(lambda: public_pem(ed_key()), lambda body: eddsa(body, ed_key()), id="EdDSA"),
    ],
)
def test_a_valid_token_gives_its_claims(
    key: Callable[[], str], token: Callable[[Any], str]
) -> None:
    body = claims(sub="anna", publish=["orders", "user:*"], subscribe=["news"])
    found = verifier(key()).verify(token(body))
    assert (found.subject, found.expires_at) == ("anna", body["exp"])
    assert found.publish.covers("user:7") and not found.publish.covers("news")
    assert found.subscribe.covers("news") and not found.subscribe.covers("orders")


def test_a_token_without_the_claim_allows_nothing() -> None:
    found = verifier(SECRET).verify(hs256(claims(sse=None)))
    assert not found.publish and not found.subscribe and found.subject is None


# --- Forgeries ----------------------------------------------------------------------------------------------


def unsigned(**header: Any) -> str:
    return signed(claims(publish=["*"]), header, lambda data: b"")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, ["none"], ["HS256"]])
@pytest.mark.parametrize("key", [SECRET, "public"])
def test_alg_none_in_any_spelling_is_refused(alg: Any, key: str) -> None:
    checker = verifier(public_pem(rsa_key()) if key == "public" else key)
    assert "algorithm is not allowed" in refusal(checker, unsigned(alg=alg))
    assert "algorithm is not allowed" in refusal(checker, unsigned(typ="JWT"))


def public_forms() -> Sequence[bytes]:
    """Every form of a server's public RSA key that could be mistaken for a secret."""
    public = rsa_key().public_key()
    pem = public_pem(rsa_key())
    return [
        pem.encode(),
        pem.strip().encode(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(jwk(rsa_key())).encode(),
        public.public_numbers().n.to_bytes(256, "big"),
    ]


@pytest.mark.parametrize("form", range(7))
@pytest.mark.parametrize("more", [(), (SECRET,)], ids=["RSA key only", "beside a secret"])
def test_a_public_key_used_as_hmac_secret_is_refused(form: int, more: tuple[str, ...]) -> None:
    forged = hs256(claims(publish=["*"]), public_forms()[form])
    assert "signature" in refusal(verifier(public_pem(rsa_key()), *more), forged)


def test_a_token_is_not_tried_with_a_key_of_another_algorithm() -> None:
    checker = verifier(public_pem(rsa_key()), public_pem(ec_key()), public_pem(ed_key()), SECRET)
    body = claims(publish=["*"])
    for forged in (
        rs256(body, rsa_key(), alg="ES256"),
        es256(body, ec_key(), alg="EdDSA"),
        eddsa(body, ed_key(), alg="RS256"),
        hs256(body, alg="RS256"),
    ):
        assert "signature" in refusal(checker, forged)


@pytest.mark.parametrize("alg", ["HS384", "HS512", "RS512", "PS256", "ES384", "ES256K", "EdDSA2", "hs256"])
def test_an_algorithm_outside_the_four_is_refused(alg: str) -> None:
    assert "algorithm is not allowed" in refusal(verifier(SECRET), hs256(claims(), alg=alg))


def test_an_algorithm_that_the_settings_leave_out_is_refused() -> None:
    checker = verifier(SECRET, public_pem(ed_key()), algorithms=["EdDSA"])
    assert "algorithm is not allowed" in refusal(checker, hs256(claims()))
    checker.verify(eddsa(claims(), ed_key()))


@pytest.mark.parametrize("header", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_inside_the_token_is_not_used(header: str) -> None:
    own = jwk(rsa_key(which=1))
    token = rs256(claims(publish=["*"]), rsa_key(which=1), **{header: own})
    assert "signature" in refusal(verifier(public_pem(rsa_key())), token)


def test_an_unknown_critical_extension_is_refused() -> None:
    # RFC 7515 §4.1.11
    assert refusal(verifier(SECRET), hs256(claims(), crit=["exp"], exp=1))
    assert refusal(verifier(SECRET), hs256(claims(), crit=["b64"], b64=False))


def test_a_changed_token_is_refused() -> None:
    head, body, tag = hs256(claims(publish=["a"])).split(".")
    other = b64url(json.dumps(claims(publish=["*"])).encode())
    assert "signature" in refusal(verifier(SECRET), f"{head}.{other}.{tag}")
    assert "signature" in refusal(verifier(SECRET), f"{head}.{body}.{b64url(b'0' * 32)}")
    assert refusal(verifier(SECRET), f"{head}.{body}.")
    assert refusal(verifier(SECRET), f"{head}.{body}")
    assert "signature" in refusal(verifier(OTHER_SECRET), f"{head}.{body}.{tag}")


# --- Claims -------------------------------------------------------------------------------------------------

HOUR = 3600


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        pytest.param({"exp": None}, "lacks exp", id="without an end"),
        pytest.param({"exp": time.time() - 1}, "expired", id="ended a second ago: no leeway"),
        pytest.param({"exp": 0}, "expired", id="ended in 1970"),
        pytest.param({"exp": -1e300}, "expired", id="ended long before"),
        pytest.param({"exp": "9999999999"}, "not a number", id="an end in text"),
        pytest.param({"exp": True}, "not a number|expired", id="an end that is true"),
        pytest.param({"exp": [9999999999]}, "malformed", id="an end in a list"),
        pytest.param({"exp": 10**400}, "not a number", id="an end beyond every float"),
        pytest.param({"exp": float("inf")}, "malformed", id="an end in infinity"),
        pytest.param({"exp": float("nan")}, "malformed", id="an end that is no number"),
        pytest.param({"nbf": time.time() + HOUR}, "not yet valid", id="not yet"),
        pytest.param({"iat": time.time() + HOUR}, "not yet valid", id="made in the future"),
        pytest.param({"nbf": "soon"}, "malformed", id="a beginning in words"),
        pytest.param({"sub": 7}, "malformed", id="a subject that is no text"),
        pytest.param({"aud": "headwater"}, "another audience", id="an audience, and we have none"),
        pytest.param({"sse": []}, "sse claim", id="a claim that is no object"),
        pytest.param({"sse": "publish"}, "sse claim", id="a claim in text"),
        pytest.param({"sse": {"publish": "*"}}, "sse claim", id="a pattern outside a list"),
        pytest.param({"sse": {"publish": {"*": 1}}}, "sse claim", id="patterns in an object"),
        pytest.param({"sse": {"subscribe": [["*"]]}}, "sse claim", id="a pattern in two lists"),
        pytest.param({"sse": {"subscribe": [None]}}, "sse claim", id="a pattern that is null"),
        pytest.param({"sse": {"publish": ["a"] * (MAX_PATTERNS + 1)}}, "more than", id="too many patterns"),
    ],
)
def test_a_signed_token_with_these_claims_is_refused(more: dict[str, Any], reason: str) -> None:
    assert re.search(reason, refusal(verifier(SECRET), hs256(claims(**more))))


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b"{", b"\xff", b'"text"', b"[" * 5000, b'{"exp":1e999}']
)
def test_a_signed_payload_that_is_not_a_claims_set_is_refused(payload: bytes) -> None:
    assert refusal(verifier(SECRET), hs256(payload))


def test_the_beginning_allows_for_a_clock_that_runs_ahead() -> None:
    found = verifier(SECRET).verify(hs256(claims(nbf=time.time() + LEEWAY / 2, iat=time.time() + LEEWAY / 2)))
    assert found.expires_at > time.time()


def test_the_expiry_is_exact() -> None:
    body = claims(ttl=100)
    checker, token = verifier(SECRET), hs256(body)
    assert checker.verify(token, now=body["exp"] - 0.001).expires_at == body["exp"]
    with pytest.raises(AccessDenied, match="expired"):
        checker.verify(token, now=body["exp"])


@pytest.mark.parametrize(
    ("aud", "good"),
    [
        ("headwater", True),
        (["x", "headwater"], True),
        ("other", False),
        (["x"], False),
        (None, False),
        ([], False),
    ],
)
def test_a_required_audience_must_be_present(aud: Any, good: bool) -> None:
    checker, token = verifier(SECRET, audiences=["headwater"]), hs256(claims(aud=aud))
    if good:
        checker.verify(token)
    else:
        assert "aud" in refusal(checker, token)


@pytest.mark.parametrize(
    ("iss", "good"), [("https://id", True), ("https://id/", False), (None, False), (["https://id"], False)]
)
def test_a_required_issuer_must_match(iss: Any, good: bool) -> None:
    checker, token = verifier(SECRET, issuers=["https://id"]), hs256(claims(iss=iss))
    if good:
        checker.verify(token)
    else:
        assert "iss" in refusal(checker, token)


def test_only_a_validly_signed_token_gets_its_faults_explained() -> None:
    for body in (claims(ttl=-5), claims(aud="x"), claims(sse=3)):
        assert "signature" in refusal(verifier(SECRET), hs256(body, OTHER_SECRET))


# --- Several keys -------------------------------------------------------------------------------------------


def key_set(*members: dict[str, Any]) -> TokenVerifier:
    keys = parse_jwks(jwks(*members).encode(), allowed=SUPPORTED)
    return TokenVerifier(lambda: keys)


@pytest.mark.parametrize("kid", ["a", "b", None])
def test_a_token_is_tried_against_the_key_that_it_names_or_all(kid: str | None) -> None:
    checker = key_set(jwk(SECRET, kid="a"), jwk(OTHER_SECRET, kid="b"))
    header = {} if kid is None else {"kid": kid}
    good = {"a": [SECRET], "b": [OTHER_SECRET], None: [SECRET, OTHER_SECRET]}[kid]
    for secret in (SECRET, OTHER_SECRET):
        token = hs256(claims(), secret, **header)
        if secret in good:
            checker.verify(token)
        else:
            assert "signature" in refusal(checker, token)


def test_a_token_that_names_an_unknown_key_is_tried_only_against_keys_without_an_id() -> None:
    checker = key_set(jwk(SECRET, kid="a"), jwk(OTHER_SECRET))
    checker.verify(hs256(claims(), OTHER_SECRET, kid="unknown"))
    assert "signature" in refusal(checker, hs256(claims(), SECRET, kid="unknown"))


def test_during_rotation_the_old_and_the_new_key_are_valid() -> None:
    keys: list[Key] = []
    checker = TokenVerifier(lambda: keys)
    old, new = hs256(claims(), SECRET), hs256(claims(), OTHER_SECRET)
    keys[:] = parse_key(SECRET.encode(), allowed=SUPPORTED)
    checker.verify(old)
    refusal(checker, new)
    keys += parse_key(OTHER_SECRET.encode(), allowed=SUPPORTED)
    checker.verify(old)
    checker.verify(new)
    del keys[0]
    refusal(checker, old)
    checker.verify(new)


# --- Any input -----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHECKER = verifier(SECRET)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="eyJhbGciOiIxMjM0NTY3ODkw.=-_~+/", max_size=60) | st.text(max_size=40))
@example("..")
@example("eyJ9..")
@example("\ud800.\ud800.\ud800")
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(AccessDenied):
        CHECKER.verify(token)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), JSON, max_size=4), JSON)
def test_a_header_of_any_shape_without_our_signature_is_refused(header: dict[str, Any], payload: Any) -> None:
    with pytest.raises(AccessDenied):
        CHECKER.verify(signed(payload, header, lambda data: b"x" * 32))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "sub", "aud", "iss", "jti", "sse"]), JSON, max_size=6
    )
)
def test_a_signed_payload_of_any_shape_is_understood_or_refused(payload: dict[str, Any]) -> None:
    try:
        found = CHECKER.verify(hs256(payload))
    except AccessDenied as denied:
        assert denied.status == 401
    else:
        assert found.expires_at > time.time() and isinstance(found.subject, str | None)


# --- Minting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        lambda: SECRET,
        lambda: private_pem(rsa_key()),
        lambda: private_pem(ec_key()),
        lambda: private_pem(ed_key()),
    ],
    ids=SUPPORTED,
)
def test_a_minted_token_verifies(text: Callable[[], str]) -> None:
    (key,) = parse_key(text().encode(), allowed=SUPPORTED)
    token = mint(
        key, publish=["orders:*"], subscribe=["*"], ttl=60, subject="cron", issuer="us", audience="hub"
    )
    checker = TokenVerifier(lambda: [key], issuers=["us"], audiences=["hub"])
    found = checker.verify(token)
    assert found.subject == "cron" and found.publish.covers("orders:1") and found.subscribe.covers("x")
    assert time.time() + 50 < found.expires_at <= time.time() + 60


def test_a_public_key_cannot_mint() -> None:
    (key,) = parse_key(public_pem(rsa_key()).encode(), allowed=SUPPORTED)
    with pytest.raises(ValueError, match="private key"):
        mint(key, publish=["a"], ttl=60)
