"""docs/tokens.md: every snippet is run, and what it mints is shown to a real service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask, Response, make_response

from tests.support.programs import require_program
from tests.support.scripted_server import ScriptedServer
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.terminal import Terminal, blocks, section
from tests.support.wait import eventually

TEXT = (ROOT / "docs" / "tokens.md").read_text()
KEY = "a-secret-of-more-than-32-bytes-0001"


def code(title: str, language: str) -> str:
    """The one block of this language in a chapter."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", section(TEXT, title), re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with Server(SSE_JWT_KEY=KEY) as server:
        yield server


def reads(server: Server, token: str, channel: str) -> int:
    """Ask for what a channel has, with this token; return the status."""
    with SSEClient(server.port, f"/events/{channel}?access_token={token}") as client:
        return client.status


def test_the_commands_to_try_it_work(tmp_path: Path) -> None:
    """Minting, and each way to show a token."""
    start, use = blocks(section(TEXT, "Try it"))
    export, run = start.splitlines()
    assert run == "make run"
    mint, header, *reading = use.splitlines()
    server = Server()
    key = Terminal(server, tmp_path).type(f"{export}; echo $SSE_JWT_KEY").strip()
    server.env["SSE_JWT_KEY"] = key
    with server:
        token = Terminal(server, tmp_path, SSE_JWT_KEY=key).type(f"{mint}; echo $TOKEN").strip()
        terminal = Terminal(server, tmp_path, TOKEN=token)
        assert json.loads(terminal.type(header))["channel"] == "orders"
        assert len(reading) == 2
        for way in reading:
            assert [one.data for one in terminal.stream(way)] == ["hello"], way
        assert json.loads(terminal.type(header.replace("orders", "other")))["status"] == 403


def test_the_schemes_and_the_claim_are_those_of_the_code() -> None:
    from sse.auth.bearer import SCHEMES
    from sse.auth.policy import MAX_PATTERNS
    from sse.auth.tokens import CLAIM, LEEWAY

    ways = re.findall(r"^- \*\*(.+?)\*\*", section(TEXT, "Where to send it"), re.MULTILINE)
    assert len(ways) == len(SCHEMES)
    for scheme in SCHEMES:
        assert [way for way in ways if (scheme.header or scheme.openapi["name"]) in way], scheme.name
    claim = section(TEXT, "The claim")
    example = json.loads(code("The claim", "json"))
    assert set(example) == {"exp", "sub", "sse"} and set(example[CLAIM]) == {"publish", "subscribe", "manage"}
    assert f"at most {MAX_PATTERNS} patterns" in claim and f"{LEEWAY} s ahead" in claim


def test_python_mints_a_token_that_is_accepted(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_JWT_KEY", KEY)
    names: dict[str, Any] = {}
    exec(code("Mint one in Python", "python"), names)
    token = names["stream_token"]("42")
    assert [reads(service, token, channel) for channel in ("news", "user:42:mail", "user:7:mail")] == [200, 200, 403]


def test_node_mints_a_token_that_is_accepted(service: Server, tmp_path: Path) -> None:
    node = require_program("node", "nodejs")
    script = tmp_path / "mint.mjs"
    script.write_text(code("Mint one in Node", "js") + 'process.stdout.write(streamToken("42"));\n')
    done = subprocess.run(
        [node, str(script)], env=os.environ | {"SSE_JWT_KEY": KEY}, capture_output=True, text=True, timeout=30, check=True
    )
    assert [reads(service, done.stdout, channel) for channel in ("news", "user:42:mail", "user:7:mail")] == [200, 200, 403]


def _exports(command: str) -> dict[str, str]:
    assert command.startswith("export ")
    return dict(one.split("=", 1) for one in command.removeprefix("export ").split())


def test_a_key_pair_signs_on_one_side_only_and_can_be_changed_without_a_refusal(tmp_path: Path) -> None:
    make, use = blocks(section(TEXT, "Two keys instead of one"))
    export, mint = use.splitlines()
    env = _exports(export)
    server = Server(**env | {"SSE_JWT_KEY_FILE": str(tmp_path / env["SSE_JWT_KEY_FILE"])})
    terminal = Terminal(server, tmp_path, **env)
    terminal.type(make.replace("\n", " && "))
    with server:
        old = terminal.type(mint).strip()
        assert reads(server, old, "orders") == 200
        assert "BEGIN PUBLIC" in (tmp_path / "verify.pem").read_text()
        # The steps under "Changing keys": the second pair beside the first.
        commands = re.findall(r"^        (openssl .*)$", section(TEXT, "Changing keys"), re.MULTILINE)
        assert len(commands) == 2
        terminal.type(" && ".join(commands))
        new = terminal.type(mint.replace("signing.pem", "signing-2.pem")).strip()
        eventually(lambda: reads(server, new, "orders") == 200, 10)
        assert reads(server, old, "orders") == 200


def test_a_key_set_is_fetched_used_and_what_leaves_it_is_refused(tmp_path: Path) -> None:
    fetch, move, keys, names = blocks(section(TEXT, "JWKS and OIDC"))[0].splitlines()
    env = _exports(keys) | _exports(names)
    server = Server(**env | {"SSE_JWKS_FILE": str(tmp_path / env["SSE_JWKS_FILE"])})
    private = rsa.generate_private_key(65537, 2048)

    def key_set(*kids: str) -> bytes:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
        return json.dumps({"keys": [public | {"kid": kid, "use": "sig", "alg": "RS256"} for kid in kids]}).encode()

    def answer(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

    with contextlib.closing(ScriptedServer()) as provider:
        at_home = f"http://127.0.0.1:{provider.port}"
        pages = {
            b"/.well-known/openid-configuration": json.dumps({"jwks_uri": f"{at_home}/keys"}).encode(),
            b"/keys": key_set("one", "two"),
        }
        provider.script = lambda connection: connection.sendall(answer(pages[provider.requests[-1].split()[1]]))
        terminal = Terminal(server, tmp_path)
        terminal.type(f"{fetch.replace('https://id.example.com', at_home)}; {move}")

    def token(kid: str, **claims: Any) -> str:
        ours = {"exp": 2**31, "iss": env["SSE_JWT_ISSUER"], "aud": env["SSE_JWT_AUDIENCE"], "sse": {"subscribe": ["*"]}}
        return jwt.encode(ours | claims, private, algorithm="RS256", headers={"kid": kid})

    with server:
        assert reads(server, token("one"), "orders") == 200
        assert reads(server, token("one", aud="somebody"), "orders") == 401
        (tmp_path / "new").write_bytes(key_set("two"))
        (tmp_path / "new").replace(tmp_path / "jwks.json")
        eventually(lambda: reads(server, token("one"), "orders") == 401, 10)
        assert reads(server, token("two"), "orders") == 200


def test_the_cookie_of_the_snippet_opens_a_stream(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSE_JWT_KEY", KEY)
    names: dict[str, Any] = {"app": Flask(__name__), "Response": Response, "make_response": make_response}
    exec(code("Mint one in Python", "python") + code("The cookie for EventSource", "python"), names)
    cookie = names["app"].test_client().get("/").headers["Set-Cookie"]
    value, *attributes = cookie.split("; ")
    assert {"Secure", "HttpOnly", "Path=/events", "SameSite=Strict", "Max-Age=900"} <= set(attributes)
    with SSEClient(service.port, "/events/news", headers={"Cookie": value}) as client:
        assert client.status == 200


def test_a_console_user_can_see_everything_and_publish(service: Server, tmp_path: Path) -> None:
    (command,) = blocks(section(TEXT, "A console user"))
    token = Terminal(service, tmp_path, SSE_JWT_KEY=KEY).type(command).strip()
    assert [reads(service, token, channel) for channel in ("anything", "_stats")] == [200, 200]
    answer = service.request("POST", "/events/anything", b"x", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 201


def test_each_refusal_in_the_table_is_said_so_by_the_code() -> None:
    said = re.findall(r"^\| 401 `(.+?)` \|", section(TEXT, "Refused: what the answer says"), re.MULTILINE)
    sources = "".join(path.read_text() for path in (ROOT / "sse" / "auth").glob("*.py"))
    assert len(said) == 8 and [text for text in said if f'"{text}"' not in sources] == []


def test_a_removed_key_stays_valid_for_as_long_as_the_page_says() -> None:
    from sse.auth.configure import ROTATION_GRACE

    assert TEXT.count(f"{ROTATION_GRACE:g} s") == 3
