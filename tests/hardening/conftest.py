"""The servers that the tests attack. Each starts once and must survive all attacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hardening.wire import alive
from tests.sse.auth.fakes import jwk, jwks, rsa_key
from tests.support.server import Server

HS_KEY = "a secret of thirty-two bytes or more"
ORIGIN = "https://app.example.com"
#: The proxy that ``limited`` trusts; it does not trust 127.0.0.1.
PROXY = "127.0.0.2"


@pytest.fixture(scope="package")
def open_server() -> Iterator[Server]:
    """A server with the defaults: no key, on a loopback address."""
    with Server() as running:
        yield running
        alive(running)


@pytest.fixture(scope="package")
def guarded() -> Iterator[Server]:
    """A server with tokens, a CORS origin and public channels."""
    with Server(SSE_JWT_KEY=HS_KEY, SSE_CORS_ORIGINS=ORIGIN, SSE_PUBLIC_CHANNELS="public:*") as running:
        yield running
        alive(running)


class Rotating(NamedTuple):
    """A server with an RSA and a symmetric key, which an attacker may try to confuse."""

    server: Server
    rsa: Any


@pytest.fixture(scope="package")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    """A server that allows RS256 and HS256."""
    key = rsa_key()
    path: Path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_text(jwks(jwk(key, kid="r", alg="RS256")))
    algorithms = "RS256,HS256"
    with Server(
        SSE_JWKS_FILE=str(path), SSE_JWT_ALGORITHMS=algorithms, SSE_JWT_KEY=HS_KEY, SSE_CORS_ORIGINS=ORIGIN
    ) as running:
        yield Rotating(running, key)
        alive(running)


@pytest.fixture(scope="package")
def limited() -> Iterator[Server]:
    """A server with small limits."""
    with Server(
        SSE_REPLAY_LIMIT=50,
        SSE_MAX_STREAMS_PER_IP=3,
        SSE_TRUSTED_PROXIES=PROXY,
        SSE_PUBLISH_RATE=5,
        SSE_PUBLISH_KEY="publish-key-0123456789",
        SSE_WINDOW_BYTES=65536,
        WORKER_CONNECTIONS=32,
        SSE_RETRY=1000,
    ) as running:
        yield running
        alive(running)
