"""Injection: a client cannot forge a field, an event, a header or a log line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from urllib.parse import quote_from_bytes

import pytest

from tests.conftest import StartServer
from tests.hardening.conftest import ORIGIN
from tests.hardening.wire import ask, exchange, history, one, replies, request
from tests.live.observe import access_log
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

#: Characters that end a line for some reader: a log viewer, a terminal, a parser in another language.
BREAKS = [
    pytest.param(octets, id=name)
    for name, octets in {
        "LF": b"\n",
        "CR": b"\r",
        "CRLF": b"\r\n",
        "two LF": b"\n\n",
        "NUL": b"\0",
        "vertical tab": b"\x0b",
        "form feed": b"\x0c",
        "NEL": "\x85".encode(),
        "a bare 0x85": b"\x85",
        "line separator": "\u2028".encode(),
        "paragraph separator": "\u2029".encode(),
        "an overlong LF": b"\xc0\x8a",
        "an LF in UTF-16": "\u0a0a".encode(),
        "escape": b"\x1b[2K",
        "a surrogate": b"\xed\xa0\x8a",
    }.items()
]
FORGED = b"event: forged"


@pytest.mark.parametrize("octets", BREAKS)
def test_a_type_with_a_line_break_is_refused_or_arrives_as_one_type(open_server: Server, octets: bytes) -> None:
    kind = b"a" + octets + FORGED
    with SSEClient(open_server.port, "/events/typed") as client:
        client.next_event()
        reply = one(open_server, request(f"/events/typed?event={quote_from_bytes(kind)}", "Content-Length: 0", method="POST"))
        assert reply.status in (201, 400)
        last = open_server.publish("typed", "end")
        seen = client.events_until(lambda event: event.id == last)[:-1]
    assert [event.event for event in seen] == ([kind.decode()] if reply.status == 201 else [])
    if set(octets) & set(b"\r\n\0"):
        assert reply.status == 400


@pytest.mark.parametrize("octets", BREAKS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_channel_with_a_line_break_is_refused(open_server: Server, octets: bytes, method: str) -> None:
    for where in ("/events/a%s", "/events/a%sb", "/events/%sa", "/events?channel=a%s", "/events?channel=a&channel=b%s"):
        if method == "POST" and "?" in where:
            continue
        reply = one(open_server, request(where % quote_from_bytes(octets), "Content-Length: 0", method=method))
        assert reply.status == 400, where
        assert octets not in reply.body.removesuffix(b"\n")


@pytest.mark.parametrize("octets", BREAKS)
def test_a_cursor_with_a_line_break_adds_nothing_to_the_stream(open_server: Server, octets: bytes) -> None:
    cursor = b"1-1" + octets + FORGED + octets + b"data: x" + octets * 2
    for target in ("lastEventId", "last_event_id", "since"):
        with SSEClient(open_server.port, f"/events/a?{target}={quote_from_bytes(cursor)}") as client:
            if client.status == 400:
                continue  # a query that is not UTF-8
            opening, reset = client.events_until(lambda event: event.event == "stream-reset")
            assert opening.is_opening
            told = json.loads(reset.data or "")
            assert told["reason"] == "malformed" and told["requested"].isprintable() and told["requested"].isascii()
            assert b"\nevent: forged" not in client.body and b"\revent: forged" not in client.body


@pytest.mark.parametrize("octets", BREAKS)
@pytest.mark.parametrize("name", ["Last-Event-ID", "Idempotency-Key", "Origin", "Content-Type", "Accept", "User-Agent", "Cookie"])
def test_a_line_break_in_a_header_adds_no_header_to_the_response(guarded: Server, name: str, octets: bytes) -> None:
    line = name.encode() + b": x" + octets + b"Set-Cookie: forged=1"
    body = request("/events/public:a", line, "Content-Length: 1", "Connection: close", method="POST", body=b"x")
    for octets_sent in (body, request("/openapi.json", line), request("/events/private", line)):
        answer = exchange(guarded.port, octets_sent)
        for reply in replies(answer):
            assert reply.header("set-cookie") is None
            assert b"forged" not in reply.body or reply.status == 400
            assert all("forged" not in value for _, value in reply.headers)


@pytest.mark.parametrize(
    "origin",
    [
        f"{ORIGIN}%0d%0aX-Forged: 1",
        f"{ORIGIN}, http://evil.test",
        f"{ORIGIN} http://evil.test",
        f"{ORIGIN}.evil.test",
        f"{ORIGIN}@evil.test",
        f"{ORIGIN}/../",
        f"{ORIGIN}:444",
        f"{ORIGIN}#",
        "https://evil.test#app.example.com",
        "https://evil.test?https://app.example.com",
        "https://xapp.example.com",
        "https://app.example.com\u0080".encode().decode("latin-1"),
        "http://app.example.com",
        "null",
        "*",
        "",
    ],
)
def test_a_foreign_origin_is_neither_allowed_nor_echoed(guarded: Server, origin: str) -> None:
    for octets in (
        request("/events/public:a", f"Origin: {origin}", method="HEAD"),
        request("/events/none", f"Origin: {origin}"),
        request("/events/x", f"Origin: {origin}", "Access-Control-Request-Method: POST", method="OPTIONS"),
    ):
        for reply in replies(exchange(guarded.port, octets)):
            assert reply.header("access-control-allow-origin") is None
            assert reply.header("access-control-allow-credentials") is None


def test_a_header_with_two_origins_is_not_allowed(guarded: Server) -> None:
    reply = one(guarded, request("/events/none", f"Origin: {ORIGIN}", f"Origin: {ORIGIN}"))
    assert reply.header("access-control-allow-origin") is None


BATCHES = {
    "a break in a type": {"channel": "batch", "data": "x", "event": "a\nevent: forged"},
    "a break in a channel": {"channel": "batch\n", "data": "x"},
    "a retry that is text": {"channel": "batch", "data": "x", "retry": "1\ndata: forged"},
    "a retry that is true": {"channel": "batch", "data": "x", "retry": True},
    "a retry that is a fraction": {"channel": "batch", "data": "x", "retry": 1.5},
    "a member id": {"channel": "batch", "data": "x", "id": "9999999999999-0"},
    "a type that is a list": {"channel": "batch", "data": "x", "event": ["a"]},
    "a channel that is a list": {"channel": ["batch"], "data": "x"},
    "a control event": {"channel": "batch", "data": "x", "event": "stream-reset"},
    "the canary": {"channel": "_canary", "data": "x"},
}


@pytest.mark.parametrize("event", [pytest.param(event, id=name) for name, event in BATCHES.items()])
def test_a_batch_cannot_bypass_the_checks_of_a_single_event(open_server: Server, event: dict[str, object]) -> None:
    line = json.dumps(event)
    answer = open_server.request("POST", "/events", line, {"Content-Type": "application/x-ndjson"})
    assert answer.status in (400, 403), answer.body
    assert history(open_server, "batch") == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"channel":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nested 100,000 deep"),
        pytest.param(b'{"channel":"a","data":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", id="objects 50,000 deep"),
        pytest.param(b'{"channel":"a","data":' + b"9" * 60_000 + b"}", id="a number of 60,000 digits"),
        pytest.param(b'{"channel":"a","data":NaN}', id="NaN"),
        pytest.param(b'{"channel":"a","data":1e999}', id="a number beyond a double"),
        pytest.param(b'\xff\xfe{\0"\0', id="UTF-16"),
        pytest.param(b'{"channel":"a","data":"x"}\r{"channel":"b","data":"y"}', id="a bare CR between two"),
    ],
)
def test_json_that_breaks_other_parsers_is_a_400_or_413(open_server: Server, line: bytes) -> None:
    answer = open_server.request("POST", "/events", line, {"Content-Type": "application/x-ndjson"})
    assert answer.status in (400, 413), answer.body[:300]
    assert answer.json()["detail"] and len(answer.body) < 600


# ── the log ───────────────────────────────────────────────────────────────────────────────────────────────────


TARGETS = [
    pytest.param(target, id=name)
    for name, target in {
        "an encoded line": b"/x%0a%7b%22level%22%3a%22forged%22%7d",
        "a quote": b'/x"status=200"',
        "a backslash": b"/x\\nforged",
        "fields": b"/x?status=200&client=10.0.0.1",
        "raw UTF-8": "/x\u2028forged\u202e".encode(),
        "raw Latin-1": b"/x\x85forged\x9b",
        "a format": b"/%25s%25n%(message)s{0.__class__}",
        "markup": b"/<script>",
        "8 KB": b"/" + b"a" * 8000,
    }.items()
]


@pytest.mark.parametrize("target", TARGETS)
def test_each_request_is_one_log_line(open_server: Server, target: bytes) -> None:
    # The line of an earlier request may still be on its way.
    open_server.request("GET", "/last-before", headers={"X-Request-ID": (mark := uuid.uuid4().hex)})
    open_server.wait_for_log(f'"request_id": "{mark}"')
    before = len(open_server.log_text())
    answer = exchange(open_server.port, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))
    eventually(lambda: open_server.log_text()[before:].endswith("\n"), 2)
    added = open_server.log_text()[before:]
    assert added.count("\n") == 1 and added.splitlines() == [added[:-1]]
    line = json.loads(added)
    assert line["level"] in ("info", "warning", "debug") and line["message"].isprintable()


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_request_can_forge_a_log_line_in_either_format(
    start_server: StartServer, form: str
) -> None:
    server = start_server(LOG_FORMAT=form, SSE_PUBLISH_KEY="publish-key-0123456789")
    before = len(server.log_text())
    forged = b"FORGED-LINE"
    attacks = [
        b"GET /a%0aFORGED-LINE HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nX\x0bFORGED-LINE: 1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nX: a\rFORGED-LINE\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\r\nX: \x85FORGED-LINE\0\r\n\r\n",
        b"GET /a\x85FORGED-LINE HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /a\u2028FORGED-LINE HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"GET /a\rFORGED-LINE HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET\x1b[2J\rFORGED-LINE /a HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x1b[2J\rFORGED-LINE\r\n\r\n",
        b"GET / HTTP/1.1\x85FORGED-LINE\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: localhost\x0bFORGED-LINE\r\n\r\n",
        b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\x85FORGED-LINE\r\n\r\n",
        b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\x0bFORGED-LINE\r\n\r\n",
        b"POST /events/a HTTP/1.1\r\nHost: localhost\r\nExpect: \x85FORGED-LINE\r\n\r\n",
        b"GET /events/a?event=%0aFORGED-LINE HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /events/a?event=\u2028%e2%80%a8%c2%85%1b%0dFORGED-LINE HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    ]
    for octets in attacks:
        exchange(server.port, octets)
    eventually(lambda: len(server.log_text()[before:].splitlines()) >= len(attacks) - 4, 3)
    added = server.log_path.read_bytes()[before:]
    for line in added.decode().splitlines():  # splits at every character that Python takes for a line break
        assert forged.decode() not in line[: len(forged) + 2], line
        assert line.isprintable(), line
        if form == "json":
            json.loads(line)
    assert added.count(b"\n") <= len(attacks) + 2


def test_the_logged_client_is_the_peer_unless_a_trusted_proxy_names_another(limited: Server) -> None:
    line = 'X-Forwarded-For: 1.2.3.4" status=200\tclient=9.9.9.9'
    exchange(limited.port, request("/nowhere/untrusted", line))
    exchange(limited.port, request("/nowhere/trusted", line), source="127.0.0.2")

    def clients() -> dict[str, str]:
        return {line["target"]: line["client"] for line in access_log(limited) if "target" in line}

    eventually(lambda: "/nowhere/trusted" in clients(), 2)
    assert clients()["/nowhere/untrusted"] == "127.0.0.1"
    assert clients()["/nowhere/trusted"] == "127.0.0.2"


def test_an_id_of_a_views_own_stream_cannot_contain_a_line_break(start_server: StartServer) -> None:
    from sse.events.items import Message
    from sse.events.model import InvalidEvent
    from sse.web.view_streams import encode_item

    checks: list[Callable[[str], object]] = [
        lambda text: encode_item(Message("d", id=text)),
        lambda text: encode_item(Message("d", event=text)),
        lambda text: encode_item({"data": "d", "id": text}),
    ]
    for check in checks:
        for text in ("a\nb", "a\rb", "a\0b"):
            with pytest.raises(InvalidEvent):
                check(text)


def test_an_idempotency_key_is_never_interpreted(open_server: Server) -> None:
    for key in ("a' OR '1'='1", "a\\';--", "$ne", "../../etc/passwd", "*", "%s%n", "{0}"):
        found = ask(open_server, request("/events/idem", f"Idempotency-Key: {key}", "Content-Length: 1", method="POST", body=b"x"))
        assert found[0].status == (400 if " " in key else 201)
