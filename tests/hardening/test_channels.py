"""Attacks on what channels can do: listing, erasing, closing and revoking without the right; patterns; long polls."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.hardening.conftest import HS_KEY, ORIGIN
from tests.hardening.wire import alive, ask, exchange, one, replies, request
from tests.live.observe import samples, streams
from tests.sse.auth.fakes import claims, hs256
from tests.support.server import Server
from tests.support.wait import eventually

JSON = "Accept: application/json"


def bearer(**lists: list[str]) -> str:
    token = hs256({**claims(), "sse": lists, "sub": "mallory", "iat": int(time.time()) - 60}, HS_KEY)
    return f"Authorization: Bearer {token}"


READER = bearer(subscribe=["mine:*", "news"])
PUBLISHER = bearer(publish=["mine:*", "news"])
MANAGER = bearer(manage=["mine:*"])
ROOT = bearer(manage=["*"], publish=["*"], subscribe=["*"])

#: What each needs, and who may: nobody, a reader, a publisher, a manager of mine:*, one of everything.
RIGHTS = [
    ("GET /channels", (401, 403, 403, 403, 200)),
    ("GET /channels?prefix=mine:", (401, 200, 403, 200, 200)),
    ("GET /channels?prefix=mine:a", (401, 200, 403, 200, 200)),
    ("GET /channels?prefix=mine", (401, 403, 403, 403, 200)),
    ("GET /channels?prefix=news", (401, 403, 403, 403, 200)),  # also of newsletters
    ("DELETE /events/mine:1", (401, 403, 403, 200, 200)),
    ("DELETE /events/other", (401, 403, 403, 403, 200)),
    ("DELETE /streams?channel=mine:1", (401, 403, 403, 202, 202)),
    ("DELETE /streams?channel=mine:*", (401, 403, 403, 202, 202)),
    ("DELETE /streams?channel=*", (401, 403, 403, 403, 202)),
    ("DELETE /streams?subject=nobody", (401, 403, 403, 403, 202)),
    ("DELETE /streams?request=r-1", (401, 403, 403, 403, 202)),
    ("DELETE /streams?subject=nobody&channel=mine:1", (401, 403, 403, 403, 202)),
    ("GET /events/mine:1", (401, 200, 403, 403, 200)),
    ("GET /events/mine:*", (401, 200, 403, 403, 200)),
    ("GET /events/mine*", (401, 403, 403, 403, 200)),
    ("GET /events/*", (401, 403, 403, 403, 200)),
    ("POST /events/mine:2?close=1", (401, 403, 201, 403, 409)),
    ("POST /events/other:2?close=1", (401, 403, 403, 403, 201)),
]


@pytest.mark.parametrize(("what", "statuses"), RIGHTS)
def test_each_right_allows_what_it_says_and_no_more(guarded: Server, what: str, statuses: tuple[int, ...]) -> None:
    method, target = what.split(" ")
    lines = ["Content-Length: 0"] * (method == "POST") + [JSON] * (method == "GET")
    found = [
        one(guarded, request(target, *lines, *who, method=method)).status
        for who in ([], [READER], [PUBLISHER], [MANAGER], [ROOT])
    ]
    assert tuple(found) == statuses


@pytest.mark.parametrize("target", ["/events/mine:1", "/streams?channel=mine:1"])
def test_a_token_in_the_url_changes_nothing(guarded: Server, target: str) -> None:
    value = ROOT.rpartition(" ")[2]
    both = "&" if "?" in target else "?"
    assert one(guarded, request(f"{target}{both}access_token={value}", method="DELETE")).status == 401


@pytest.mark.parametrize("target", ["/events/mine:1", "/streams?channel=mine:1"])
@pytest.mark.parametrize(
    ("lines", "allowed"),
    [([], False), (["Origin: https://evil.example"], False), (["Origin: null"], False), ([f"Origin: {ORIGIN}"], True)],
)
def test_another_sites_page_cannot_erase_or_revoke_with_a_visitors_cookie(
    guarded: Server, target: str, lines: list[str], allowed: bool
) -> None:
    cookie = f"Cookie: sse_token={ROOT.rpartition(' ')[2]}"
    status = one(guarded, request(target, cookie, *lines, method="DELETE")).status
    assert status in ((200, 202) if allowed else (403,))


@pytest.mark.parametrize("target", ["/channels", "/events/a", "/streams?channel=a"])
def test_a_page_of_another_site_cannot_manage_a_developers_service(open_server: Server, target: str) -> None:
    method = "GET" if target == "/channels" else "DELETE"
    assert one(open_server, request(target, method=method)).status in (200, 202)
    for line in ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site"):
        status = one(open_server, request(target, line, method=method)).status
        # Reading is public on this machine, so the list is, too; but no page of another site can read the answer.
        assert status == (200 if method == "GET" else 403)


def test_the_log_of_commands_cannot_be_read_or_written(open_server: Server, guarded: Server) -> None:
    for server, lines in ((open_server, []), (guarded, [bearer(subscribe=["*", "_*"], publish=["*", "_*"], manage=["*", "_*"])])):
        for target in ("/events/_control", "/events/_contro*", "/events/_*", "/events?channel=_control", "/events?channel=a&channel=_c*"):
            assert one(server, request(target, *lines)).status == 400
            assert one(server, request(target, JSON, *lines)).status == 400
        for method, target in (("POST", "/events/_control"), ("DELETE", "/events/_control"), ("POST", "/events/_control?close=1")):
            assert one(server, request(target, "Content-Length: 1", *lines, method=method, body=b"x")).status in (400, 403)
        assert one(server, request("/streams?channel=_control", *lines, method="DELETE")).status in (202, 400, 403)
        assert b"_control" not in one(server, request("/channels", *[line for line in [ROOT] if lines])).body


@pytest.mark.parametrize("kind", ["revoke", "stream-end", "stream-reset", "run", "heartbeat", "stop"])
def test_a_publisher_cannot_forge_what_only_the_service_says(guarded: Server, kind: str) -> None:
    body = json.dumps({"subject": "alice", "at": 2**53}).encode()
    reply = one(guarded, request(f"/events/mine:f?event={kind}", PUBLISHER, f"Content-Length: {len(body)}", method="POST", body=body))
    if kind in ("revoke", "stop"):  # free types of an app; only in our own channel they mean something
        assert reply.status == 201
        alice = hs256(claims(subscribe=["mine:f"], sub="alice", iat=int(time.time()) - 60), HS_KEY)
        assert one(guarded, request("/events/mine:f", f"Authorization: Bearer {alice}", method="HEAD")).status == 200
    else:
        assert reply.status == 400


PATTERNS = ["%2A", "a%2A", "a*b", "**", "a**", "*a", "?", "[a]", "a*%0a", "a*%00", "_*", "%5f*", "a/*", f"{'a' * 129}*", "é*", ".*", ":*", "-*"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_odd_pattern_is_refused_or_means_what_it_says(open_server: Server, pattern: str) -> None:
    for target in (f"/events/{pattern}", f"/events?channel={pattern}"):
        status = one(open_server, request(target.encode().decode("latin-1"), JSON)).status
        assert status in ((200,) if pattern in ("%2A", "a%2A") else (400, 404)), target


def test_a_stream_of_too_many_patterns_is_refused(open_server: Server) -> None:
    query = "&".join(f"channel=p{n}:*" for n in range(65))
    (reply,) = ask(open_server, request(f"/events?{query}"))
    assert reply.status == 400 and b"SSE_MAX_CHANNELS" in reply.body
    (reply,) = ask(open_server, request("/events?" + "&".join(["channel=*"] * 65), JSON))
    assert reply.status == 400


ABUSE = [
    "/channels?limit=1000000000",
    "/channels?limit=%00",
    "/channels?prefix=" + "a" * 5000,
    "/channels?after=" + "%ff" * 10,
    "/channels?" + "prefix=a&" * 500,
    "/events/a?wait=99999",
    "/events/a?wait=1e1",
    "/events/a?wait=0x10",
    "/events/a?limit=1_0",
    "/events/a?limit=" + "9" * 5000,
    "/events/a?envelope=1&envelope=0",
    "/events/a?plain=%31%00",
    "/streams?subject=",
    "/streams?request=%0d%0aX:%20y",
    "/streams?channel=%2e%2e/x",
    "/streams?subject=" + "x" * 2000,
    "/streams?subject=a&chanel=b",
]


@pytest.mark.parametrize("target", ABUSE, ids=lambda target: target[:40])
def test_an_abused_parameter_is_refused_without_an_echo_of_it(open_server: Server, target: str) -> None:
    method = "DELETE" if target.startswith("/streams") else "GET"
    reply = one(open_server, request(target, JSON, method=method))
    assert reply.status == 400 and len(reply.body) < 400
    assert not any(name == "x" for name, _ in reply.headers)


@pytest.mark.parametrize("framing", [["Content-Length: 30"], ["Transfer-Encoding: chunked"]])
def test_the_body_of_a_delete_is_not_a_request(open_server: Server, framing: list[str]) -> None:
    hidden = b"DELETE /events/hidden HTTP/1.1"
    body = hidden if "Length" in framing[0] else b"1e\r\n" + hidden + b"\r\n0\r\n\r\n"
    open_server.publish("hidden", "still here")
    answers = replies(exchange(open_server.port, request("/events/a", *framing, method="DELETE", body=body)))
    assert len(answers) == 1 and answers[0].status == 200
    assert b"still here" in one(open_server, request("/events/hidden", JSON)).body


def _poll(server: Server, target: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(request(target, JSON))
    return sock


def test_long_polls_are_no_cheap_way_to_hold_connections(start_server: StartServer) -> None:
    """WORKER_CONNECTIONS=32: at most 16 wait, the others are sent away, and publishers find room all the time."""
    server = start_server(WORKER_CONNECTIONS=32, SSE_WRITE_TIMEOUT=2)
    with contextlib.ExitStack() as flood:
        polls = [flood.enter_context(_poll(server, f"/events/f{number}?wait=60")) for number in range(28)]
        eventually(lambda: streams(server) == 16, 10, lambda: f"{streams(server)} wait")
        refused = eventually(lambda: _answered(polls, 12), 10)
        for sock in refused:
            assert sock.recv(65536).startswith(b"HTTP/1.1 503 ")
        for number in range(20):
            server.publish("calm", str(number))
        assert server.request("GET", "/events/calm?wait=60", headers={"Accept": "application/json"}).status == 200
        assert samples(server)['sse_streams_refused_total{reason="streams"}'] >= 12
        alive(server)
    eventually(lambda: streams(server) == 0, 5)


def _answered(polls: list[socket.socket], number: int) -> list[socket.socket]:
    """Return the requests that have an answer, once they are so many."""
    ready, _, _ = select.select(polls, [], [], 0)
    assert len(ready) <= number
    return ready if len(ready) == number else []


def test_long_polls_count_by_address_with_streams(limited: Server) -> None:
    """SSE_MAX_STREAMS_PER_IP=3."""
    with contextlib.ExitStack() as held:
        before = streams(limited)
        for number in range(3):
            held.enter_context(_poll(limited, f"/events/ip{number}?wait=60"))
        eventually(lambda: streams(limited) == before + 3, 10)
        assert one(limited, request("/events/ip4?wait=60", JSON)).status == 503
        assert one(limited, request("/events/ip4", JSON)).status == 200
    eventually(lambda: streams(limited) == before, 5)


def test_a_history_of_the_largest_events_is_sent_in_pieces(start_server: StartServer) -> None:
    server = start_server(SSE_MAX_EVENT_BYTES=1_000_000)
    for _ in range(12):
        server.publish("big", b"x" * 900_000)
    sizes: list[Any] = []
    cursor = "earliest"
    while True:
        answer = server.request("GET", f"/events/big?limit=1000&since={cursor}", headers={"Accept": "application/json"})
        page = answer.json()
        if not page["events"]:
            break
        cursor = page["next"]
        sizes.append((len(answer.body), len(page["events"])))
    assert max(size for size, _ in sizes) < 4_000_000 and sum(count for _, count in sizes) == 12
