"""``headwater token``: what it mints is what the service accepts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.command.run import headwater
from tests.support.server import Server

SECRET = "s" * 48


def claims(*words: str, **env: str) -> dict[str, Any]:
    done = headwater("token", *words, **{"SSE_JWT_KEY": SECRET, **env})
    assert done.returncode == 0 and done.stderr.startswith("headwater: signed by HS256, valid until "), done
    found: dict[str, Any] = jwt.decode(done.stdout.strip(), SECRET, ["HS256"], audience="hub", options={"verify_aud": False})
    return found


def test_it_has_what_was_asked_for() -> None:
    found = claims(
        "--sub", "alice", "--publish", "a,b:*", "--publish", "c", "--subscribe", "*", "--manage", "b:*", "--expires", "12h",
        SSE_JWT_ISSUER="us", SSE_JWT_AUDIENCE="hub",
    )  # fmt: skip
    assert found["sse"] == {"publish": ["a", "b:*", "c"], "subscribe": ["*"], "manage": ["b:*"]}
    assert (found["sub"], found["iss"], found["aud"]) == ("alice", "us", "hub")
    assert found["exp"] - found["iat"] == 12 * 3600 and abs(found["iat"] - time.time()) < 60


def test_the_service_takes_it_for_what_it_allows() -> None:
    with Server(SSE_JWT_KEY=SECRET) as server:
        token = headwater("token", "--publish", "orders:*", SSE_JWT_KEY=SECRET).stdout.strip()
        words = ("--url", server.url(""), "--timeout", "0")
        allowed = headwater("publish", "orders:7", "tea", *words, HEADWATER_TOKEN=token)
        refused = headwater("publish", "stock", "tea", *words, HEADWATER_TOKEN=token)
    assert (allowed.returncode, refused.returncode) == (0, 1), allowed.stderr
    assert " 403 " in refused.stderr and token not in refused.stderr


@pytest.mark.parametrize(
    ("words", "env", "status", "told"),
    [
        pytest.param((), {}, 2, "would allow nothing", id="for-nothing"),
        pytest.param(("--publish", "a b"), {}, 2, "a pattern is", id="no-pattern"),
        pytest.param(("--publish", "a", "--expires", "soon"), {}, 2, "is not a duration", id="no-duration"),
        pytest.param(("--publish", "a", "--expires", "9999d"), {}, 2, "1s to 3653d", id="for-ever"),
        pytest.param(("--publish", "a"), {"SSE_JWT_KEY": ""}, 1, "set SSE_JWT_KEY", id="no-key"),
        pytest.param(("--publish", "a"), {"SSE_JWT_KEY": "short"}, 2, "SSE_JWT_KEY", id="a-short-key"),
        pytest.param(("--publish", "a"), {"PORT": "x"}, 2, "PORT='x'", id="bad-settings"),
    ],
)
def test_what_cannot_be_minted_is_refused_in_words(
    words: tuple[str, ...], env: dict[str, str], status: int, told: str
) -> None:
    done = headwater("token", *words, **{"SSE_JWT_KEY": SECRET, **env})
    assert (done.returncode, done.stdout) == (status, "") and told in done.stderr, done
    assert SECRET not in done.stderr


def test_a_key_that_only_verifies_is_helped_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    done = headwater("token", "--publish", "a", "--key-file", str(file), "--kid", "one")
    assert jwt.get_unverified_header(done.stdout.strip()) == {"alg": "HS256", "typ": "JWT", "kid": "one"}
