"""Minting tokens on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from pydantic import SecretStr

from sse.auth.authenticator import Authenticator
from sse.auth.cli import sse_commands

from .fakes import (
    OTHER_SECRET,
    SECRET,
    FakeSettings,
    bearer,
    ec_key,
    jwk,
    jwks,
    private_pem,
    public_pem,
    request,
    rsa_key,
)

Run = Callable[..., Result]


def run(settings: FakeSettings, *args: str) -> Result:
    return CliRunner().invoke(sse_commands(lambda: settings), ["token", *args])


def authenticator(settings: FakeSettings) -> Authenticator:
    return Authenticator(settings, loopback_only=lambda: False)


WITH_SECRET = FakeSettings(sse_jwt_key=SecretStr(SECRET), sse_jwt_issuer="us", sse_jwt_audience="hub")


def test_a_token_from_the_command_line_allows_only_its_channels() -> None:
    result = run(
        WITH_SECRET, "--publish", "orders:*", "--subscribe", "a,b", "--ttl", "60", "--subject", "cron"
    )
    assert result.exit_code == 0, result.output
    token = result.stdout.strip()
    assert token.count(".") == 2 and "\n" not in token, "nothing but the token, for $(…)"
    checker = authenticator(WITH_SECRET)
    grant = checker.may_publish(request(**bearer(token)), ["orders:1"])
    assert grant.subject == "token:cron" and grant.expires_at is not None
    checker.may_subscribe(request("GET", **bearer(token)), ["a", "b"])
    for check, channel in ((checker.may_publish, "a"), (checker.may_subscribe, "orders:1")):
        with pytest.raises(Exception, match="403"):
            check(request(**bearer(token)), [channel])
    assert "HS256, valid until 2" in result.stderr and token not in result.stderr


def test_the_app_has_the_command() -> None:
    app = Flask("tests")
    app.cli.add_command(sse_commands(lambda: WITH_SECRET))
    result = app.test_cli_runner().invoke(args=["sse", "token", "--publish", "a"])
    assert result.exit_code == 0 and result.stdout.count(".") == 2


def test_a_private_key_from_a_file_signs_if_the_service_has_only_the_public_key(tmp_path: Path) -> None:
    settings = FakeSettings(sse_jwt_key=SecretStr(public_pem(rsa_key())), sse_jwt_algorithms=("RS256",))
    refused = run(settings, "--publish", "a")
    assert refused.exit_code == 1 and "--key-file" in refused.stderr
    key_file = tmp_path / "private.pem"
    key_file.write_text(private_pem(rsa_key()))
    minted = run(settings, "--publish", "a", "--key-file", str(key_file))
    authenticator(settings).may_publish(request(**bearer(minted.stdout.strip())), ["a"])


def test_a_key_of_a_key_set_is_chosen_by_its_id(tmp_path: Path) -> None:
    key_set = tmp_path / "jwks.json"
    key_set.write_text(
        jwks(jwk(ec_key(), kid="public"), jwk(SECRET, kid="old"), jwk(OTHER_SECRET, kid="new"))
    )
    settings = FakeSettings(sse_jwks_file=key_set, sse_jwt_algorithms=("HS256", "ES256"))
    result = run(settings, "--subscribe", "*", "--kid", "new")
    token = result.stdout.strip()
    authenticator(settings).may_subscribe(request("GET", **bearer(token)), ["a"])
    key_set.write_text(jwks(jwk(SECRET, kid="old")))
    with pytest.raises(Exception, match="401"):
        authenticator(settings).may_subscribe(request("GET", **bearer(token)), ["a"])


@pytest.mark.parametrize(
    ("settings", "args", "status", "message"),
    [
        pytest.param(FakeSettings(), ["--publish", "a"], 1, "set SSE_JWT_KEY", id="no tokens configured"),
        pytest.param(WITH_SECRET, [], 2, "--publish, --subscribe or --manage", id="for nothing"),
        pytest.param(WITH_SECRET, ["--publish", ","], 2, "the token would allow nothing", id="for an empty list"),
        pytest.param(
            WITH_SECRET, ["--publish", "a*b"], 2, "a pattern is", id="a pattern that matches nothing"
        ),
        pytest.param(WITH_SECRET, ["--publish", "a", "--ttl", "0"], 2, "--ttl", id="for no time"),
        pytest.param(WITH_SECRET, ["--publish", "a", "--ttl", "-5"], 2, "--ttl", id="for less than no time"),
        pytest.param(WITH_SECRET, ["--publish", "a", "--ttl", "1e9"], 2, "--ttl", id="for ever"),
        pytest.param(WITH_SECRET, ["--publish", "a", "--kid", "x"], 1, "--key-file", id="an unknown key"),
        pytest.param(
            WITH_SECRET, ["--publish", "a", "--key-file", "/nowhere"], 2, "--key-file", id="no file"
        ),
        pytest.param(
            FakeSettings(sse_jwt_key=SecretStr("short")),
            ["--publish", "a"],
            1,
            "SSE_JWT_KEY",
            id="a bad setting",
        ),
    ],
)
def test_the_command_explains_why_it_cannot_mint(
    settings: FakeSettings, args: list[str], status: int, message: str
) -> None:
    result = run(settings, *args)
    assert result.exit_code == status and message in result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr and SECRET not in result.stderr


def test_an_invalid_key_file_is_explained_but_not_quoted(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("too-short-a-secret")
    result = run(WITH_SECRET, "--publish", "a", "--key-file", str(key_file))
    assert result.exit_code == 1 and "at least 32 bytes" in result.stderr
    assert "too-short-a-secret" not in result.stderr


def payload(token: str) -> Any:
    import base64

    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def test_a_token_has_no_needless_claims() -> None:
    plain = FakeSettings(sse_jwt_key=SecretStr(SECRET))
    body = payload(run(plain, "--publish", "a").stdout.strip())
    assert set(body) == {"iat", "exp", "sse"} and body["exp"] - body["iat"] == 3600
    assert body["sse"] == {"publish": ["a"], "subscribe": []}
