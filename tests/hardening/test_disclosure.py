"""Disclosure: tokens never reach the log, and clients learn only of channels that they may read."""

from __future__ import annotations

import json

import pytest

from tests.hardening.conftest import HS_KEY
from tests.hardening.wire import exchange, one, request
from tests.sse.auth.fakes import claims, hs256
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

SECRET_CHANNEL = "merger-with-acme"
TOKEN = hs256(claims(ttl=3600, publish=["*"], subscribe=["*"], sub="alice-the-subject"), HS_KEY)
BEARER = f"Authorization: Bearer {TOKEN}"
#: Parts of a token that must not be in a log: its body and its signature.
TELLTALE = TOKEN.split(".")[1][:20], TOKEN.split(".")[2][:20]


def test_public_pages_contain_no_channel_subject_or_data(guarded: Server) -> None:
    with SSEClient(guarded.port, f"/events/{SECRET_CHANNEL}", headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        client.next_event()
        reply = one(guarded, request(f"/events/{SECRET_CHANNEL}", BEARER, "Content-Length: 9", method="POST", body=b"top-price"))
        assert reply.status == 201
        assert client.next_message().data == "top-price"
        open_to_all = [
            guarded.request("GET", path, port=guarded.health_port).body
            for path in ("/metrics", "/healthz?verbose", "/readyz?verbose", "/startupz?verbose", "/livez?verbose", "/nope")
        ]
        open_to_all += [guarded.request("GET", path).body for path in ("/", "/openapi.json", "/console/main.js", "/nope", "/metrics")]
        for body in open_to_all:
            for told in (SECRET_CHANNEL, "alice", "top-price", HS_KEY, str(guarded.directory)):
                assert told.encode() not in body, told


def test_a_refusal_does_not_tell_whether_the_channel_exists(guarded: Server) -> None:
    narrow = f"Authorization: Bearer {hs256(claims(subscribe=['x'], publish=['x']), HS_KEY)}"
    one(guarded, request("/events/is-there", BEARER, "Content-Length: 1", method="POST", body=b"x"))
    for lines in ([], [narrow]):
        there, not_there = (one(guarded, request(f"/events/{name}", *lines)) for name in ("is-there", "isnt-there"))
        assert there.status == not_there.status
        assert there.body.replace(b"is-there", b"") == not_there.body.replace(b"isnt-there", b"")


def test_the_services_figures_need_a_token_if_reading_does(guarded: Server) -> None:
    assert one(guarded, request("/events/_stats", method="HEAD")).status == 401
    assert one(guarded, request("/events/_stats", BEARER, method="HEAD")).status == 403, "* does not reach it"
    assert one(guarded, request("/events/_canary", method="HEAD")).status == 200


def test_a_reader_of_public_channels_sees_no_others(guarded: Server) -> None:
    with SSEClient(guarded.port, "/events/public:news?since=earliest") as client:
        for channel in (SECRET_CHANNEL, "public", "publicx", "public:news"):
            one(guarded, request(f"/events/{channel}", BEARER, "Content-Length: 4", method="POST", body=channel[:4].encode()))
        one(guarded, request("/events/public:news", BEARER, "Content-Length: 3", method="POST", body=b"end"))
        seen = client.events_until(lambda event: event.data == "end")
    assert [event.data for event in seen if not event.is_control] == ["publ", "end"]


PLACES = {
    "in the query": request(f"/events/x?access_token={TOKEN}", method="HEAD"),
    "in the query of a publish": request(f"/events/x?access_token={TOKEN}", "Content-Length: 1", method="POST", body=b"x"),
    "with an escaped name": request(f"/events/x?access%5Ftoken={TOKEN}", method="HEAD"),
    "with an escaped equals sign": request(f"/events/x?access_token%3D{TOKEN}", method="HEAD"),
    "with escaped dots": request(f"/events/x?access_token={TOKEN.replace('.', '%2E')}", method="HEAD"),
    "twice": request(f"/events/x?access_token={TOKEN}&access_token={TOKEN}x", method="HEAD"),
    "in the header": request("/events/x", BEARER, method="HEAD"),
    "in the cookie": request("/events/x", f"Cookie: sse_token={TOKEN}", method="HEAD"),
    "under another name": request(f"/nowhere?t={TOKEN}"),
    "in the path": request(f"/nowhere/{TOKEN}"),
    "as a channel": request(f"/events/{TOKEN}"),
    "as a cursor": request(f"/events/x?lastEventId={TOKEN}", method="HEAD"),
    "in a bad request line": b"GET /x?access_token=" + TOKEN.encode() + b" HTTP/9\r\n\r\n",
    "behind a space in the request line": b"GET / x?access_token=" + TOKEN.encode() + b" HTTP/1.1\r\n\r\n",
    "in a header that is refused": request("/", f"Authorization : Bearer {TOKEN}"),
    "in a header with a control character": request("/", f"Authorization: Bearer {TOKEN}\x01\0"),
    "as a header's name": request("/", f"Bearer {TOKEN}: x"),
    "as a length": request("/", f"Content-Length: {TOKEN}"),
    "as a transfer coding": request("/", f"Transfer-Encoding: {TOKEN}"),
    "as an expectation": request("/events/x", f"Expect: {TOKEN}", "Content-Length: 1", method="POST", body=b"x"),
    "as a method": request("/", method=TOKEN),
    "as a Host": request("/", f"Host: {TOKEN}"),
    "as a chunk size": request("/events/x", BEARER, "Transfer-Encoding: chunked", method="POST", body=TOKEN.encode() + b"\r\n"),
}


@pytest.mark.parametrize("octets", [pytest.param(octets, id=name) for name, octets in PLACES.items()])
def test_a_token_never_reaches_the_log(guarded: Server, octets: bytes) -> None:
    before = guarded.log_path.stat().st_size
    answer = exchange(guarded.port, octets)
    eventually(lambda: guarded.log_path.stat().st_size > before or answer.startswith(b"HTTP/1.1 200"), 2)
    one(guarded, request("/nowhere/fence"))
    eventually(lambda: "/nowhere/fence" in guarded.log_path.read_text()[before:], 2)
    added = guarded.log_path.read_text()[before:]
    for part in TELLTALE:
        assert part not in added


def test_no_response_names_the_software_below(guarded: Server) -> None:
    for octets in (request("/"), request("/nowhere"), b"nonsense\r\n\r\n", request("/events/x"), request("/", "Content-Length: x")):
        answer = exchange(guarded.port, octets).lower()
        for told in (b"gunicorn", b"werkzeug", b"python", b"gevent", b"flask", b"sqlite", b"traceback", b"/work", b"site-packages"):
            assert told not in answer.partition(b"\r\n\r\n")[0], told
    for target in ("/nowhere", "/events/x"):
        assert set(json.loads(one(guarded, request(target)).body)) <= {"title", "status", "detail"}
