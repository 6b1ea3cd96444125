"""Tokens, end to end: forged, confused, expired, not yet valid, too narrow, in two places at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.hardening.conftest import HS_KEY, ORIGIN, Rotating
from tests.hardening.wire import ask, one, request
from tests.sse.auth.fakes import b64url, claims, hs256, jwk, public_pem, rs256, rsa_key, signed
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient

ALL = claims(ttl=3600, publish=["*"], subscribe=["*"])
GOOD = hs256(ALL, HS_KEY)


def tried(server: Server, token: str) -> set[int]:
    """Return the statuses of publishing and reading with a token, sent in every way that is allowed."""
    statuses = set()
    body = {"method": "POST", "body": b"x"}
    for target, lines in (
        ("/events/t", [f"Authorization: Bearer {token}"]),
        (f"/events/t?access_token={token}", []),
        ("/events/t", [f"Cookie: sse_token={token}", f"Origin: {ORIGIN}"]),
    ):
        if "?" not in target:
            statuses.add(one(server, request(target, *lines, "Content-Length: 1", **body)).status)  # type: ignore[arg-type]
        statuses.add(one(server, request(target, *lines, method="HEAD")).status)
    return statuses


def test_a_valid_token_works_in_every_way(guarded: Server, mixed: Rotating) -> None:
    assert tried(guarded, GOOD) == {201, 200}
    assert tried(mixed.server, GOOD) == {201, 200}
    assert tried(mixed.server, rs256(ALL, mixed.rsa, kid="r")) == {201, 200}


def _parts(header: dict[str, Any], payload: Any = ALL, signature: str = "") -> str:
    return f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(payload).encode())}.{signature}"


HEAD, BODY, SIGNATURE = GOOD.split(".")
WIDER = b64url(json.dumps({**ALL, "sub": "root"}).encode())

FORGED = {
    "alg none": _parts({"alg": "none"}),
    "alg None": _parts({"alg": "None"}),
    "alg NONE": _parts({"alg": "NONE"}),
    "alg nOnE with a signature": _parts({"alg": "nOnE"}, ALL, SIGNATURE),
    "alg none without its last dot": _parts({"alg": "none"}).removesuffix("."),
    "alg empty": _parts({"alg": ""}),
    "no alg": _parts({"typ": "JWT"}),
    "alg a list": _parts({"alg": ["HS256"]}, ALL, SIGNATURE),
    "alg in lower case": hs256(ALL, HS_KEY, alg="hs256"),
    "alg HS512, which is not allowed": hs256(ALL, HS_KEY, alg="HS512"),
    "an empty signature": f"{HEAD}.{BODY}.",
    "a signature cut off": GOOD[:-1],
    "a signature of another body": f"{HEAD}.{WIDER}.{SIGNATURE}",
    "a signature by an empty key": hs256(ALL, ""),
    "a signature by another key": hs256(ALL, HS_KEY + "!"),
    "a signature by the key's beginning": hs256(ALL, HS_KEY[:32]),
    "four parts": f"{GOOD}.{SIGNATURE}",
    "five parts, as if encrypted": f"{HEAD}.{BODY}.{SIGNATURE}.{BODY}.{SIGNATURE}",
    "two parts": f"{HEAD}.{BODY}",
    "dots": "..",
    "a kid that is a path": hs256(ALL, "", kid="../../../../dev/null"),
    "a kid that is SQL": hs256(ALL, "x", kid="' UNION SELECT 'x"),
    "a kid that is an object": hs256(ALL, HS_KEY + "!", kid={"a": 1}),
    "its own key (jwk)": rs256(ALL, rsa_key(which=7), jwk=jwk(rsa_key(which=7))),
    "a key to be fetched (jku)": rs256(ALL, rsa_key(which=7), jku="http://127.0.0.1:1/jwks.json"),
    "a certificate to be fetched (x5u)": rs256(ALL, rsa_key(which=7), x5u="http://127.0.0.1:1/x.pem"),
    "its own certificate (x5c)": rs256(ALL, rsa_key(which=7), x5c=["MIIB"]),
    "an unknown crit": hs256(ALL, HS_KEY, crit=["exp2"], exp2=1),
    "b64 false": hs256(ALL, HS_KEY, crit=["b64"], b64=False),
    "a payload that is a list": hs256([1], HS_KEY),
    "a payload that is no JSON": hs256(b"x", HS_KEY),
    "a payload nested 1,500 deep": hs256(b"[" * 1500 + b"]" * 1500, HS_KEY),
    "no exp": hs256(claims(exp=None, publish=["*"], subscribe=["*"]), HS_KEY),
    "exp just now": hs256(claims(ttl=-1, publish=["*"], subscribe=["*"]), HS_KEY),
    "exp long ago": hs256(claims(exp=0, publish=["*"], subscribe=["*"]), HS_KEY),
    "exp infinite": hs256(b'{"exp":Infinity,"sse":{"publish":["*"],"subscribe":["*"]}}', HS_KEY),
    "exp beyond a double": hs256(b'{"exp":1e999,"sse":{"publish":["*"],"subscribe":["*"]}}', HS_KEY),
    "exp not a number": hs256(b'{"exp":NaN,"sse":{"publish":["*"],"subscribe":["*"]}}', HS_KEY),
    "exp text": hs256({**ALL, "exp": "tomorrow"}, HS_KEY),
    "exp a list": hs256({**ALL, "exp": [9999999999]}, HS_KEY),
    "not yet valid": hs256({**ALL, "nbf": int(time.time()) + 3600}, HS_KEY),
    "issued in the future": hs256({**ALL, "iat": int(time.time()) + 3600}, HS_KEY),
    "for another audience": hs256({**ALL, "aud": "another"}, HS_KEY),
    "an sse claim that is a list": hs256({**ALL, "sse": ["*"]}, HS_KEY),
    "patterns that are a text": hs256({**ALL, "sse": {"publish": "*", "subscribe": "*"}}, HS_KEY),
    "patterns that are objects": hs256({**ALL, "sse": {"publish": [{}], "subscribe": [{}]}}, HS_KEY),
    "10,000 patterns": hs256({**ALL, "sse": {"publish": ["a"] * 257, "subscribe": ["a"] * 257}}, HS_KEY),
    "a subject that is a list": hs256({**ALL, "sub": ["root"]}, HS_KEY),
}


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in FORGED.items()])
def test_a_forged_token_is_refused(guarded: Server, token: str) -> None:
    assert tried(guarded, token) == {401}


def test_a_public_key_is_not_accepted_as_a_secret(mixed: Rotating) -> None:
    """Key confusion: HS256, "signed" with the public part of an RSA key."""
    pem = public_pem(mixed.rsa)
    for secret in (pem, pem.strip(), pem.replace("\n", "\r\n"), json.dumps(jwk(mixed.rsa)), jwk(mixed.rsa)["n"], "r"):
        for more in ({}, {"kid": "r"}, {"typ": "JWT", "kid": "r"}):
            assert tried(mixed.server, hs256(ALL, secret, **more)) == {401}
    for key in (rsa_key(which=8), rsa_key(1024, which=9)):
        assert tried(mixed.server, rs256(ALL, key, kid="r")) == {401}
    # A valid signature, but the header names the other algorithm.
    token = rs256(ALL, mixed.rsa, kid="r").split(".")
    confused = {"alg": "HS256", "kid": "r"}
    assert tried(mixed.server, ".".join([b64url(json.dumps(confused).encode()), *token[1:]])) == {401}
    assert tried(mixed.server, signed(ALL, {"alg": "RS256", "kid": "r"}, lambda data: b"\0" * 256)) == {401}
    assert tried(mixed.server, signed(ALL, {"alg": "RS256", "kid": "r"}, lambda data: b"")) == {401}


@pytest.mark.parametrize("live", [False, True])
def test_a_stream_ends_cleanly_with_its_token_and_its_client_is_then_refused(guarded: Server, live: bool) -> None:
    expires = time.time() + 2.2
    token = hs256({**claims(subscribe=["ends"]), "exp": expires}, HS_KEY)
    with SSEClient(guarded.port, f"/events/ends?access_token={token}") as client:
        if live:
            client.next_event()
            one(guarded, request("/events/ends", f"Authorization: Bearer {GOOD}", "Content-Length: 1", method="POST", body=b"x"))
        client.read_to_end(6)
        assert client.ending.clean
        assert time.time() <= expires + 0.3, "it outlived its token"
    assert one(guarded, request(f"/events/ends?access_token={token}")).status in (200, 401)
    while time.time() <= expires:
        time.sleep(0.02)
    assert one(guarded, request(f"/events/ends?access_token={token}")).status == 401


ESCAPES = [
    # granted, tried
    ("orders", "orders2"),
    ("orders", "order"),
    ("orders", "Orders"),
    ("orders", "orders:eu"),
    ("orders:*", "orders"),
    ("orders:*", "ordersx"),
    ("orders:*", "xorders:a"),
    ("orders:*", "_orders:a"),
    ("*:orders", "a:orders"),
    ("o*s", "orders"),
    ("?rders", "orders"),
    ("[o]rders", "orders"),
    (".*", "orders"),
    ("orders|users", "users"),
    ("^.*$", "orders"),
    ("", "orders"),
    ("orders,users", "users"),
    ("*", "_stats"),
    ("**", "orders"),
    ("orders ", "orders"),
    ("orders\n", "orders"),
    ("ORDERS", "orders"),
    ("\uff4frders", "orders"),
    ("orders\0*", "orders"),
]


@pytest.mark.parametrize(("granted", "channel"), ESCAPES)
def test_a_pattern_covers_only_what_it_says(guarded: Server, granted: str, channel: str) -> None:
    token = f"Authorization: Bearer {hs256(claims(publish=[granted], subscribe=[granted]), HS_KEY)}"
    for target in (f"/events/{channel}", f"/events?channel={channel}", f"/events?channel=public:a&channel={channel}"):
        assert one(guarded, request(target, token, method="HEAD")).status in (400, 403), target
    reply = one(guarded, request(f"/events/{channel}", token, "Content-Length: 1", method="POST", body=b"x"))
    assert reply.status in (400, 403)
    line = json.dumps({"channel": channel, "data": "x"}).encode()
    lines = (token, "Content-Type: application/x-ndjson", f"Content-Length: {len(line)}")
    assert one(guarded, request("/events", *lines, method="POST", body=line)).status in (400, 403)


def test_one_channel_that_the_token_does_not_cover_stops_the_whole_batch(guarded: Server) -> None:
    token = f"Authorization: Bearer {hs256(claims(publish=['mine']), HS_KEY)}"
    body = b'{"channel":"mine","data":"1"}\n{"channel":"yours","data":"2"}'
    reply = one(
        guarded,
        request("/events", token, "Content-Type: application/x-ndjson", f"Content-Length: {len(body)}", method="POST", body=body),
    )
    assert reply.status == 403
    with SSEClient(guarded.port, f"/events/mine?since=earliest&access_token={GOOD}") as client:
        with pytest.raises(TimeoutError):
            client.next_message(0.3)


def test_a_token_in_the_url_does_not_publish(guarded: Server) -> None:
    for target in ("/events/t", "/events"):
        lines = ["Content-Length: 1"] + ["Content-Type: application/x-ndjson"] * (target == "/events")
        reply = one(guarded, request(f"{target}?access_token={GOOD}", *lines, method="POST", body=b"x"))
        assert reply.status == 401
        assert b"?access_token= is for reading only" in reply.body


def test_two_different_credentials_are_refused(guarded: Server) -> None:
    other = hs256(claims(subscribe=["x"]), HS_KEY)
    for octets in (
        request(f"/events/x?access_token={other}", f"Authorization: Bearer {GOOD}"),
        request(f"/events/x?access_token={other}&access_token={GOOD}"),
        request("/events/x", f"Cookie: sse_token={other}; sse_token={GOOD}"),
        request("/events/x", f"Authorization: Bearer {GOOD}", f"Authorization: Bearer {other}"),
        request("/events/x", f"Authorization: Bearer {GOOD}, Bearer {other}"),
        request("/events/x", f"Authorization: Basic {GOOD}"),
        request("/events/x", f"Authorization: Bearer{GOOD}"),
        request("/events/x", f"Proxy-Authorization: Bearer {GOOD}"),
        request("/events/x", f"authorization_: Bearer {GOOD}"),
    ):
        (reply,) = ask(guarded, octets)
        assert reply.status == 401
        assert (reply.header("www-authenticate") or "").startswith('Bearer realm="headwater"')
        assert GOOD.encode() not in reply.body


def test_the_publish_key_cannot_read_and_similar_keys_cannot_publish(limited: Server) -> None:
    key = "publish-key-0123456789"
    for wrong in (key[:-1], key + "0", key.upper(), key + "=", key + "%20", "", "*", "null", "publish-key-012345678\u00b9"):
        line = f"Authorization: Bearer {wrong}".encode()
        assert one(limited, request("/events/x", line, "Content-Length: 1", method="POST", body=b"x")).status == 401


def test_the_service_accepts_tokens_from_the_command(guarded: Server) -> None:
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "sse", "token"]
    options = ["--publish", "minted:*", "--subscribe", "minted:*", "--ttl", "600"]
    environ = {**os.environ, "SSE_JWT_KEY": HS_KEY, "SSE_LOG": "memory:"}
    made = subprocess.run([*command, *options], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    line = f"Authorization: Bearer {made.stdout.strip()}"
    for channel, published, read in (("minted:1", 201, 200), ("minted", 403, 403)):
        octets = request(f"/events/{channel}", line, "Content-Length: 1", method="POST", body=b"x")
        assert one(guarded, octets).status == published
        assert one(guarded, request(f"/events/{channel}", line, method="HEAD")).status == read


def test_a_publisher_cannot_use_up_the_idempotency_keys_of_other_channels(guarded: Server) -> None:
    def publish(channel: str, *also: str) -> int:
        token = hs256(claims(publish=[channel, *also]), HS_KEY)
        lines = [f"Authorization: Bearer {token}", "Idempotency-Key: order-7"]
        if not also:
            return one(guarded, request(f"/events/{channel}", *lines, "Content-Length: 1", method="POST", body=b"x")).status
        body = "\n".join(json.dumps({"channel": name, "data": "x"}) for name in (channel, *also)).encode()
        lines += ["Content-Type: application/x-ndjson", f"Content-Length: {len(body)}"]
        return one(guarded, request("/events", *lines, method="POST", body=body)).status

    assert publish("thief") == publish("thief", "thief2") == 201
    assert publish("victim") == 201
    assert publish("thief", "victim") == 201  # its token covers that channel
    other = request(
        "/events/victim",
        f"Authorization: Bearer {hs256(claims(publish=['victim']), HS_KEY)}",
        "Idempotency-Key: order-7",
        "Content-Length: 1",
        method="POST",
        body=b"y",
    )
    assert one(guarded, other).status == 422
