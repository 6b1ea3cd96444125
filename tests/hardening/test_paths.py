"""Path tricks: a proxy's rules and our routes must see the same path, and only our routes are served."""

from __future__ import annotations

import pytest

from tests.hardening.conftest import HS_KEY
from tests.hardening.wire import ask, exchange, one, request
from tests.sse.auth.fakes import claims, hs256
from tests.support.server import Server

NOT_THE_CHANNEL = [
    "/events/%2e%2e/private",
    "/events/../events/private",
    "/events/./private",
    "/events/public:a/../private",
    "/events/public:a%2f..%2fprivate",
    "/events/public:a%2fprivate",
    "/events/public:a%5cprivate",
    "/events/public:a/private",
    "//events/private",
    "/events//private",
    "/./events/private",
    "/x/../events/private",
    "/events;x=1/private",
    "/events/private;x=1",
    "/events/public:a;/private",
    "/events/%252e%252e/private",
    "/events/private%00",
    "/events/private%20",
    "/events/private/",
    "/events/private%2f",
    "/events/private.",
    "/EVENTS/private",
    "/events/private%3fchannel=public:a",
    "/events/private%23",
    "/events/%70rivate%c0%af",
    "/events\\private",
    "/events%5cprivate",
    "/.%2e/events/private",
    "*",
    "events/private",
    "http:///events/private",
    "http://localhost:99999/events/private",
    "//localhost/events/private",
    "/events/private#",
]


@pytest.mark.parametrize("target", NOT_THE_CHANNEL)
def test_no_spelling_of_a_path_bypasses_the_token(guarded: Server, target: str) -> None:
    """Not even with a token for another channel; and none is redirected, which would pass on a token in the query."""
    for narrow in ("public:a", "events", "x", "private;x=1"):
        line = f"Authorization: Bearer {hs256(claims(subscribe=[narrow], publish=[narrow]), HS_KEY)}"
        for method in ("HEAD", "POST"):
            for reply in ask(guarded, request(target, line, "Content-Length: 0", method=method)):
                assert reply.status in (400, 401, 403, 404, 405), target
                assert reply.header("location") is None


@pytest.mark.parametrize("begin", ["//", "///", "/%2f", "/%2F%2f", "%2f/"])
def test_a_path_with_extra_slashes_is_another_path(open_server: Server, begin: str) -> None:
    """So another spelling of ``/events`` cannot bypass a proxy's rules."""
    for method, target, lines in (
        ("HEAD", "events/a", []),
        ("HEAD", "events?channel=a", []),
        ("POST", "events/a", ["Content-Length: 1"]),
        ("POST", "events", ["Content-Length: 1", "Content-Type: application/x-ndjson"]),
    ):
        octets = request(begin + target, *lines, "Connection: close", method=method, body=b"x" if lines else b"")
        status = int(exchange(open_server.port, octets).split(b" ")[1])
        assert status == (400 if begin == "%2f/" else 404), target


def test_access_is_checked_for_the_decoded_channel(guarded: Server) -> None:
    for spelled in ("/events/%70rivate", "/%65vents/private", "/events?channel=%70rivate", "/events?%63hannel=private"):
        assert one(guarded, request(spelled, method="HEAD")).status == 401
        token = f"Authorization: Bearer {hs256(claims(subscribe=['private']), HS_KEY)}"
        assert one(guarded, request(spelled, token, method="HEAD")).status == 200


@pytest.mark.parametrize(
    "query",
    [
        "channel=public:a&channel=private",
        "channel=private&channel=public:a",
        "channel=public:a,private",
        "channel=public:a%26channel=private",
        "channel=public:a;channel=private",
        "channel[]=private",
        "channel=public:a&channel=",
        "channel=publi*",
        "channel=*",
        "channel=public:a&" + "&".join(f"channel=public:{n}" for n in range(65)),
        "channel=public:a&channel=_canary",
        "channel=_stats",
        "channel=_",
    ],
)
def test_no_spelling_of_a_query_bypasses_the_token(guarded: Server, query: str) -> None:
    assert one(guarded, request(f"/events?{query}", method="HEAD")).status in (400, 401, 403)


@pytest.mark.parametrize(
    "name",
    [
        "../../settings.py",
        "..%2f..%2fsettings.py",
        "%2e%2e/%2e%2e/settings.py",
        "%2e%2e%2fviews.py",
        "..%5c..%5csettings.py",
        "....//views.py",
        "%252e%252e%252fviews.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "main.js%00.html",
        ".",
        "..",
        "",
        "con",
        "a" * 5000,
        "main.js/../../views.py",
        "%ff%fe",
    ],
)
def test_only_the_consoles_files_can_be_fetched(open_server: Server, name: str) -> None:
    for reply in ask(open_server, request(f"/console/{name}")):
        assert reply.status in (400, 404), name
        assert b"import" not in reply.body and b"root:" not in reply.body


def test_nobody_can_publish_to_a_reserved_channel(guarded: Server, open_server: Server) -> None:
    token = f"Authorization: Bearer {hs256(claims(publish=['*', '_*', '_canary'], subscribe=['*']), HS_KEY)}"
    for channel in ("_canary", "_stats", "_x", "%5fcanary"):
        for server in (guarded, open_server):
            reply = one(server, request(f"/events/{channel}", token, "Content-Length: 1", method="POST", body=b"x"))
            assert reply.status in (400, 403)


def test_the_health_port_serves_no_streams_and_the_main_port_no_metrics(open_server: Server) -> None:
    for target in ("/events/a", "/events?channel=a", "/", "/openapi.json", "/console/main.js", "//events/a", "/%65vents/a"):
        assert open_server.request("GET", target, port=open_server.health_port).status == 404, target
    assert open_server.request("POST", "/events/a", "x", port=open_server.health_port).status in (404, 405)
    for target in ("/metrics", "/%6detrics", "//metrics", "/metrics/", "/metrics;x", "/metrics?verbose"):
        for lines in ([], ["X-Forwarded-Port: 8081"], [f"Host: localhost:{open_server.health_port}"]):
            reply = ask(open_server, request(target, *lines))[0]
            assert reply.status in (400, 404), target
            assert b"sse_streams" not in reply.body
