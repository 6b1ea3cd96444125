"""Parses the keys that verify tokens, and mint them.

*No key confusion.* In the classic attack on JWT, the token chooses the algorithm: ``none``, or HS256 with the server's
public RSA key as the "secret". Here the key determines the algorithm when it is loaded, and we try a token only against
keys of the algorithm that it names (RFC 8725 §3.1). Text that looks like an asymmetric key but does not parse is
refused; it never becomes an HMAC secret.

*No weak keys.* We refuse HMAC secrets of less than 256 bits (RFC 7518 §3.2), RSA keys of less than 2048 (§3.3), and
curves other than P-256 and Ed25519.

This module imports PyJWT and cryptography (9 MB), so it is imported only where tokens are configured.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import HMACAlgorithm

from .algorithms import MIN_SECRET_BYTES, SUPPORTED

MIN_RSA_BITS: Final = 2048

# A token without a `kid` is tried against each key of its algorithm, at 30 µs a key. This limits what a bad one costs.
MAX_KEYS: Final = 32

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_PEM_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its only algorithm. The repr hides the key material."""

    algorithm: str
    kid: str | None
    verifier: bytes | PublicKey = field(repr=False)
    signer: bytes | PrivateKey | None = field(repr=False, default=None)


def parse_key(content: bytes, *, allowed: Collection[str]) -> Sequence[Key]:
    """Parse PEM blocks or, if there are none, one HMAC secret: the content without surrounding whitespace.

    A private key verifies with its public half.

    Raises ValueError, without key material, for anything else, for a weak key, and for an algorithm not in ``allowed``.
    """
    content = content.strip()
    if b"-----BEGIN" in content:
        text = content.decode("ascii", errors="replace")
        # Environment variables often hold \n for a line feed.
        text = text if "\n" in text else text.replace("\\n", "\n")
        # `openssl ecparam -genkey` writes the curve's parameters before the key, which contains them, too.
        blocks = [block for block in _PEM_BLOCK.finditer(text) if block[1] != "EC PARAMETERS"]
        if not blocks:
            raise ValueError("not a complete PEM block (-----BEGIN … KEY----- to -----END … KEY-----)")
        keys = [_from_pem(block[0], block[1]) for block in blocks[: MAX_KEYS + 1]]
    else:
        keys = [_from_secret(content)]
    for key in keys:
        if key.algorithm not in allowed:
            raise ValueError(f"it is for {key.algorithm}, and SSE_JWT_ALGORITHMS allows {', '.join(allowed)}")
    return _bounded(keys)


def parse_jwks(content: bytes, *, allowed: Collection[str]) -> Sequence[Key]:
    """Parse a JWK Set (RFC 7517 §5) and return its usable keys.

    Skips keys of other types, algorithms and uses ("use", "key_ops"): identity providers list keys for others, too, and
    §5 tells us to ignore those that we do not understand.

    Raises ValueError, without the content, if no key is left or this is not a JWK Set.
    """
    try:
        members = json.loads(content)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        members = None
    if not isinstance(members, list):
        raise ValueError('not a JWK Set: a JSON object with an array "keys"')
    keys = [key for member in members if (key := _from_jwk(member)) is not None and key.algorithm in allowed]
    if not keys:
        raise ValueError(f"it contains no usable signing key for {', '.join(allowed)}")
    return _bounded(keys)


def _bounded(keys: list[Key]) -> list[Key]:
    if len(keys) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    return keys


def _from_secret(secret: bytes) -> Key:
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"an HMAC secret needs at least {MIN_SECRET_BYTES} bytes (256 bits, RFC 7518 §3.2), not {len(secret)}"
        )
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        # "ssh-rsa …", a JWK, a DER certificate: these get published, so they are not secret.
        raise ValueError("this is an asymmetric key, a certificate or a JWK, not a secret") from None
    return Key("HS256", None, secret, secret)


def _from_pem(block: str, label: str) -> Key:
    try:
        if label.endswith("PRIVATE KEY"):
            return _from_private(serialization.load_pem_private_key(block.encode(), password=None))
        if label.endswith("PUBLIC KEY"):
            return _from_public(serialization.load_pem_public_key(block.encode()))
    except _Unsuitable:
        raise
    except Exception:  # cryptography raises many types; some texts contain parts of the key
        raise ValueError(f"the PEM block {label!r} cannot be read (or is encrypted)") from None
    raise ValueError(f"PEM block {label!r} cannot be used, only public and private keys (extract the key first)")


class _Unsuitable(ValueError):
    """We can read the key, but must not use it."""


def _from_private(key: object, kid: str | None = None) -> Key:
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        public = _from_public(key.public_key(), kid)
        return Key(public.algorithm, kid, public.verifier, key)
    raise _Unsuitable(f"keys of this type are not supported, only those for {', '.join(SUPPORTED)}")


def _from_public(key: object, kid: str | None = None) -> Key:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise _Unsuitable(f"an RSA key needs at least {MIN_RSA_BITS} bits, not {key.key_size}")
        return Key("RS256", kid, key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise _Unsuitable(f"ES256 uses the curve P-256, not {key.curve.name}")
        return Key("ES256", kid, key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Key("EdDSA", kid, key)
    raise _Unsuitable(f"keys of this type are not supported, only those for {', '.join(SUPPORTED)}")


def _from_jwk(member: Any) -> Key | None:
    """Return the key of a JWK Set's member; None if we cannot or must not use it."""
    if not isinstance(member, dict):
        return None
    kid, operations = member.get("kid"), member.get("key_ops", ["verify"])
    if not isinstance(kid, str | None) or not isinstance(operations, list):
        return None
    if member.get("use", "sig") != "sig" or not ("verify" in operations or "sign" in operations):
        return None
    try:
        material = jwt.PyJWK(member).key
        if isinstance(material, bytes):
            secret = _from_secret(material)
            key = Key(secret.algorithm, kid, material, material)
        elif hasattr(material, "public_key"):
            key = _from_private(material, kid)
        else:
            key = _from_public(material, kid)
    except Exception:  # PyJWT's and cryptography's errors; their texts contain the whole JWK
        return None
    # "alg" (RFC 7517 §4.4) restricts a key: one for RS512 or PS256 is not for RS256.
    return key if member.get("alg", key.algorithm) == key.algorithm else None
