"""Settings, requests and tokens for the tests of access.

Tokens are built by hand, not with PyJWT, so that tests can present what the library would refuse to write.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flask import Flask, Request
from pydantic import SecretStr

PUBLISH_KEY = "0123456789abcdef-publish"
OTHER_KEY = "fedcba9876543210-publish"
SECRET = "an HMAC secret of more than 32 bytes, in plain text"
OTHER_SECRET = "another HMAC secret of more than 32 bytes, in plain text"

app = Flask("tests")


@dataclass(frozen=True)
class FakeSettings:
    """Implements ``AuthSettings``, with the defaults of the real settings."""

    sse_auth: str = "auto"
    sse_publish_key: SecretStr | None = None
    sse_publish_key_file: Path | None = None
    sse_jwt_key: SecretStr | None = None
    sse_jwt_key_file: Path | None = None
    sse_jwks_file: Path | None = None
    sse_jwt_algorithms: tuple[str, ...] = ("HS256",)
    sse_jwt_issuer: str | None = None
    sse_jwt_audience: str | None = None
    sse_public_channels: tuple[str, ...] = ()
    sse_cors_origins: tuple[str, ...] = ()
    sse_trusted_proxies: tuple[str, ...] = ()


def request(
    method: str = "POST", path: str = "/events/orders", *, peer: str = "127.0.0.1", **headers: str
) -> Request:
    """Build a request as a worker does. Header names have _ for -; the default Host is 127.0.0.1:8080."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given = {"Host": "127.0.0.1:8080"} | given
    with app.test_request_context(
        path, method=method, headers=given, environ_base={"REMOTE_ADDR": peer}
    ) as context:
        return context.request


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


# --- Tokens -------------------------------------------------------------------------------------------------


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(*, ttl: float = 86400, publish: Any = (), subscribe: Any = (), **more: Any) -> dict[str, Any]:
    """Build a token's payload; None leaves a claim out."""
    own = {"exp": int(time.time() + ttl), "sse": {"publish": list(publish), "subscribe": list(subscribe)}}
    return {name: value for name, value in (own | more).items() if value is not None}


def signed(payload: Any, header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signing_input = f"{b64url(json.dumps(header).encode())}.{b64url(body)}"
    return f"{signing_input}.{b64url(sign(signing_input.encode()))}"


def hs256(payload: Any, secret: bytes | str = SECRET, **header: Any) -> str:
    key = secret.encode() if isinstance(secret, str) else secret
    head = {"typ": "JWT", "alg": "HS256"} | header
    return signed(payload, head, lambda data: hmac.new(key, data, hashlib.sha256).digest())


def rs256(payload: Any, key: rsa.RSAPrivateKey, **header: Any) -> str:
    head = {"alg": "RS256"} | header
    return signed(payload, head, lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256()))


def es256(payload: Any, key: ec.EllipticCurvePrivateKey, **header: Any) -> str:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")  # RFC 7518 §3.4

    return signed(payload, {"alg": "ES256"} | header, sign)


def eddsa(payload: Any, key: ed25519.Ed25519PrivateKey, **header: Any) -> str:
    return signed(payload, {"alg": "EdDSA"} | header, key.sign)


@cache
def rsa_key(bits: int = 2048, which: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return pem.decode()


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    """Build a JWK by hand (RFC 7518 §6, RFC 8037 §2)."""
    if isinstance(key, str):
        return {"kty": "oct", "k": b64url(key.encode())} | more
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        n, e = numbers.n.to_bytes(public.key_size // 8, "big"), numbers.e.to_bytes(3, "big")
        return {"kty": "RSA", "n": b64url(n), "e": b64url(e)} | more
    if isinstance(public, ec.EllipticCurvePublicKey):
        size, point = (public.key_size + 7) // 8, public.public_numbers()
        crv = {"secp256r1": "P-256", "secp384r1": "P-384"}[public.curve.name]
        x, y = (value.to_bytes(size, "big") for value in (point.x, point.y))
        return {"kty": "EC", "crv": crv, "x": b64url(x), "y": b64url(y)} | more
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)} | more


def jwks(*members: Any) -> str:
    return json.dumps({"keys": members})
