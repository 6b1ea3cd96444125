"""The servers that are attacked: started once, and left unharmed by each attack or it is found out by the next."""

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
#: The peer that `limited` believes; 127.0.0.1 is not it.
PROXY = "127.0.0.2"


@pytest.fixture(scope="package")
def open_server() -> Iterator[Server]:
    """As it is in the first minutes: no key, on loopback."""
    with Server() as running:
        yield running
        alive(running)


@pytest.fixture(scope="package")
def guarded() -> Iterator[Server]:
    """With tokens, a CORS origin and a public channel."""
    with Server(SSE_JWT_KEY=HS_KEY, SSE_CORS_ORIGINS=ORIGIN, SSE_PUBLIC_CHANNELS="public:*") as running:
        yield running
        alive(running)


class Rotating(NamedTuple):
    """A server with an RSA and a symmetric key in one set, where algorithms can be confused."""

    server: Server
    rsa: Any


@pytest.fixture(scope="package")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    """Both families of algorithms allowed at once."""
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
    """With small limits."""
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
