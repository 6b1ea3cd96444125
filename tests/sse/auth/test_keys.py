"""Keys: each has one algorithm, and weak or confusable ones are refused when they are loaded."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.hazmat.primitives.serialization import PrivateFormat

from sse.auth.keys import MAX_KEYS, SUPPORTED, Key, parse_jwks, parse_key

from .fakes import SECRET, b64url, ec_key, ed_key, jwk, jwks, private_pem, public_pem, rsa_key


@pytest.mark.parametrize(
    ("text", "algorithm", "signs"),
    [
        pytest.param(lambda: SECRET, "HS256", True, id="a secret"),
        pytest.param(lambda: "s" * 32, "HS256", True, id="a secret of just 256 bits"),
        pytest.param(lambda: f"\n {SECRET}\n", "HS256", True, id="a secret with a line feed at its end"),
        pytest.param(lambda: public_pem(rsa_key()), "RS256", False, id="RSA, public"),
        pytest.param(lambda: private_pem(rsa_key()), "RS256", True, id="RSA, private"),
        pytest.param(
            lambda: private_pem(rsa_key(), PrivateFormat.TraditionalOpenSSL), "RS256", True, id="RSA, PKCS #1"
        ),
        pytest.param(lambda: public_pem(ec_key()), "ES256", False, id="P-256, public"),
        pytest.param(lambda: private_pem(ec_key()), "ES256", True, id="P-256, private"),
        pytest.param(
            lambda: (
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
                + private_pem(ec_key(), PrivateFormat.TraditionalOpenSSL)
            ),
            "ES256",
            True,
            id="P-256, as openssl ecparam writes it",
        ),
        pytest.param(lambda: public_pem(ed_key()), "EdDSA", False, id="Ed25519, public"),
        pytest.param(lambda: private_pem(ed_key()), "EdDSA", True, id="Ed25519, private"),
        pytest.param(
            lambda: public_pem(ed_key()).strip().replace("\n", "\\n"), "EdDSA", False, id="PEM on one line"
        ),
    ],
)
def test_the_algorithm_follows_from_the_key(text: Any, algorithm: str, signs: bool) -> None:
    (key,) = parse_key(text().encode(), allowed=SUPPORTED)
    assert (key.algorithm, key.signer is not None) == (algorithm, signs)


def certificate_like() -> str:
    return public_pem(rsa_key()).replace("PUBLIC KEY", "CERTIFICATE")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(lambda: "", "at least 32 bytes", id="nothing"),
        pytest.param(lambda: "s" * 31, "at least 32 bytes", id="a secret of 248 bits"),
        pytest.param(lambda: "s" * 31 + "\n", "at least 32 bytes", id="a line feed does not count"),
        pytest.param(lambda: public_pem(rsa_key(1024)), "2048 bits", id="RSA of 1024 bits"),
        pytest.param(lambda: public_pem(ec_key(ec.SECP384R1)), "P-256", id="another curve"),
        pytest.param(lambda: public_pem(ed448.Ed448PrivateKey.generate()), "not supported", id="Ed448"),
        pytest.param(lambda: public_pem(dsa.generate_private_key(1024)), "not supported", id="DSA"),
        pytest.param(lambda: certificate_like(), "only public and private keys", id="a certificate"),
        pytest.param(
            lambda: public_pem(rsa_key())[:-40], "complete PEM", id="PEM cut off: not a secret either"
        ),
        pytest.param(
            lambda: public_pem(rsa_key()).replace("M", "!"),
            "cannot be read",
            id="PEM damaged: not a secret either",
        ),
        pytest.param(
            lambda: "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7vbqajDw4o6gJy8UtmIbkcpnkO3Kwc4qsEnSZp",
            "asymmetric",
            id="an SSH key is published, not secret",
        ),
        pytest.param(lambda: jwks(jwk(rsa_key())), "JWK", id="a JWK Set is published, not secret"),
    ],
)
def test_a_weak_or_confusable_key_is_refused(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        parse_key(text().encode(), allowed=SUPPORTED)
    for line in text().split("\n"):
        assert len(line) < 20 or line not in str(refused.value), "no key material in the message"


@pytest.mark.parametrize("allowed", [("RS256",), ("ES256", "EdDSA")])
def test_a_key_whose_algorithm_is_not_allowed_is_refused(allowed: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="SSE_JWT_ALGORITHMS"):
        parse_key(SECRET.encode(), allowed=allowed)


def test_each_pem_block_is_a_key() -> None:
    text = public_pem(rsa_key()) + public_pem(ed_key())
    assert [key.algorithm for key in parse_key(text.encode(), allowed=SUPPORTED)] == ["RS256", "EdDSA"]


def test_a_keys_repr_hides_its_material() -> None:
    (key,) = parse_key(SECRET.encode(), allowed=SUPPORTED)
    assert SECRET not in repr(key) and "HS256" in repr(key)


def algorithms(*members: Any, allowed: tuple[str, ...] = SUPPORTED) -> list[tuple[str, str | None]]:
    return [(key.algorithm, key.kid) for key in parse_jwks(jwks(*members).encode(), allowed=allowed)]


def test_a_key_set_gives_its_usable_keys_with_their_ids() -> None:
    assert algorithms(
        jwk(rsa_key(), kid="r", use="sig", alg="RS256"),
        jwk(ec_key(), kid="e", key_ops=["verify"]),
        jwk(ed_key(), kid="d"),
        jwk(SECRET, kid="s"),
        jwk(SECRET),
    ) == [("RS256", "r"), ("ES256", "e"), ("EdDSA", "d"), ("HS256", "s"), ("HS256", None)]


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(lambda: jwk(rsa_key(), use="enc"), id="for encryption"),
        pytest.param(lambda: jwk(rsa_key(), key_ops=["encrypt"]), id="for other operations"),
        pytest.param(lambda: jwk(rsa_key(), key_ops="verify"), id="operations that are no list"),
        pytest.param(lambda: jwk(rsa_key(), alg="PS256"), id="for another algorithm"),
        pytest.param(lambda: jwk(rsa_key(), alg="HS256"), id="an RSA key said to be an HMAC secret"),
        pytest.param(lambda: jwk(SECRET, alg="none"), id="for no algorithm"),
        pytest.param(lambda: jwk(SECRET, alg=["HS256"]), id="an algorithm that is no text"),
        pytest.param(lambda: jwk(rsa_key(), kid=7), id="a name that is no text"),
        pytest.param(lambda: jwk(rsa_key(1024)), id="a weak RSA key"),
        pytest.param(lambda: jwk("short"), id="a short secret"),
        pytest.param(lambda: jwk(ec_key(ec.SECP384R1)), id="another curve"),
        pytest.param(lambda: jwk(ec_key()) | {"x": "AAAA"}, id="a point that is not on the curve"),
        pytest.param(lambda: jwk(rsa_key()) | {"n": "!"}, id="damaged"),
        pytest.param(lambda: {"kty": "RSA"}, id="without its numbers"),
        pytest.param(lambda: {"kty": "new"}, id="of an unknown type"),
        pytest.param(lambda: {}, id="an empty object"),
        pytest.param(lambda: "a text", id="no object"),
        pytest.param(lambda: None, id="null"),
    ],
)
def test_a_key_set_skips_members_that_we_cannot_use(member: Any) -> None:
    assert algorithms(member(), jwk(ed_key(), kid="good")) == [("EdDSA", "good")]
    with pytest.raises(ValueError, match="no usable signing key"):
        algorithms(member())


def test_a_key_set_skips_keys_for_algorithms_that_are_not_allowed() -> None:
    assert algorithms(jwk(SECRET), jwk(ed_key(), kid="d"), allowed=("EdDSA", "RS256")) == [("EdDSA", "d")]


def test_a_private_key_in_a_key_set_verifies_with_its_public_half() -> None:
    numbers = ec_key().private_numbers().private_value.to_bytes(32, "big")
    (key,) = parse_jwks(jwks(jwk(ec_key()) | {"d": b64url(numbers)}).encode(), allowed=SUPPORTED)
    assert isinstance(key, Key) and isinstance(key.verifier, ec.EllipticCurvePublicKey)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"keys": {}}', b'{"keys": []}', b"\xff", b"[" * 100_000, b'"keys"', b"3"],
    ids=lambda content: repr(content[:12]),
)
def test_anything_but_a_key_set_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        parse_jwks(content, allowed=SUPPORTED)


def test_too_many_keys_are_refused() -> None:
    member = jwk(SECRET)
    assert len(algorithms(*[member] * MAX_KEYS)) == MAX_KEYS
    with pytest.raises(ValueError, match="more than"):
        algorithms(*[member] * (MAX_KEYS + 1))
    with pytest.raises(ValueError, match="more than"):
        parse_key((public_pem(ed_key()) * (MAX_KEYS + 1)).encode(), allowed=SUPPORTED)
