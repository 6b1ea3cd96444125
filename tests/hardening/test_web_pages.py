"""Other sites' web pages: cross-site POST, DNS rebinding and CSRF, with the headers that real browsers send."""

from __future__ import annotations

import pytest

from tests.conftest import StartServer
from tests.hardening.conftest import HS_KEY, ORIGIN
from tests.hardening.wire import one, request
from tests.sse.auth.fakes import claims, hs256
from tests.support.ports import ReservedPort
from tests.support.server import Server

TOKEN = hs256(claims(ttl=3600, publish=["*"], subscribe=["*"]), HS_KEY)


def post(*lines: str, host: str = "localhost") -> bytes:
    """Build a publish with these headers, as a page sends it."""
    text = "".join(f"{line}\r\n" for line in lines)
    return f"POST /events/web HTTP/1.1\r\nHost: {host}\r\n{text}Content-Length: 1\r\n\r\nx".encode("latin-1")


PAGES = {
    "a form of another site": ["Origin: https://evil.test", "Content-Type: application/x-www-form-urlencoded"],
    "a fetch of another site": ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Content-Type: text/plain"],
    "a beacon of another site": ["Origin: https://evil.test", "Sec-Fetch-Mode: no-cors"],
    "a sandboxed frame": ["Origin: null"],
    "a file": ["Origin: null", "Sec-Fetch-Site: cross-site"],
    "a form that hides its origin": ["Sec-Fetch-Site: cross-site", "Referer:"],
    "another port of this machine": ["Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"],
    "another port, without the origin": ["Sec-Fetch-Site: same-site"],
    "an extension": ["Origin: chrome-extension://abcdef"],
    "an origin that looks local": ["Origin: http://localhost.evil.test"],
    "an origin that begins locally": ["Origin: http://127.0.0.1.evil.test"],
    "two origins": ["Origin: http://localhost", "Origin: https://evil.test"],
    "a proxy on this machine": ["X-Forwarded-For: 203.0.113.9"],
    "a proxy that says Forwarded": ["Forwarded: for=203.0.113.9"],
    "a proxy that says Via": ["Via: 1.1 proxy"],
    "a proxy that says X-Real-IP": ["X-Real-IP: 203.0.113.9"],
    "a proxy that says X-Forwarded-Host": ["X-Forwarded-Host: localhost"],
}


@pytest.mark.parametrize("lines", [pytest.param(lines, id=name) for name, lines in PAGES.items()])
def test_a_foreign_page_cannot_publish_to_a_server_without_a_key(open_server: Server, lines: list[str]) -> None:
    reply = one(open_server, post(*lines))
    assert reply.status == 403
    assert b"evil" not in reply.body and reply.header("access-control-allow-origin") is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:8080",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "localhost.",
        "localhost@evil.test",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::]",
        "[::ffff:10.0.0.1]",
        "10.0.0.1",
        "",
        "localhost, evil.test",
        "localhost evil.test",
        "[::1",
    ],
)
def test_a_page_with_a_rebound_name_cannot_publish(open_server: Server, host: str) -> None:
    """The page is then same-origin; only its Host gives it away."""
    for lines in ([], [f"Origin: http://{host}", "Sec-Fetch-Site: same-origin"], ["Sec-Fetch-Site: same-origin"]):
        assert one(open_server, post(*lines, host=host)).status in (400, 403)


def test_an_absolute_target_does_not_replace_the_host(open_server: Server) -> None:
    octets = post(host="evil.test").replace(b"/events/web", b"http://localhost/events/web")
    assert one(open_server, octets).status in (400, 403)


def test_the_console_and_curl_can_publish_without_a_key(open_server: Server) -> None:
    own = f"localhost:{open_server.port}"
    assert one(open_server, post(host=own)).status == 201
    assert one(open_server, post(f"Origin: http://{own}", "Sec-Fetch-Site: same-origin", host=own)).status == 201


def test_a_foreign_pages_preflight_is_refused(open_server: Server) -> None:
    """Without SSE_CORS_ORIGINS no page may send custom headers, DELETE or JSON."""
    asks = ["Origin: https://evil.test", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"]
    for target in ("/events/web", "/events", "/", "/openapi.json"):
        reply = one(open_server, request(target, *asks, method="OPTIONS"))
        assert not [name for name, _ in reply.headers if name.startswith("access-control-")]


FORGERIES = {
    "no Origin": [],
    "another site": ["Origin: https://evil.test"],
    "a sandboxed frame": ["Origin: null"],
    "the allowed name without TLS": ["Origin: http://app.example.com"],
    "the allowed name on another port": ["Origin: https://app.example.com:8443"],
    "below the allowed name": ["Origin: https://x.app.example.com"],
    "the allowed name and more": ["Origin: https://app.example.com.evil.test"],
    "twice": [f"Origin: {ORIGIN}", f"Origin: {ORIGIN}"],
    "a Referer instead": [f"Referer: {ORIGIN}/page"],
    "the own name by a header that anybody writes": ["Origin: https://evil.test", "X-Forwarded-Host: evil.test"],
}


@pytest.mark.parametrize("lines", [pytest.param(lines, id=name) for name, lines in FORGERIES.items()])
def test_a_foreign_page_cannot_publish_with_the_cookie(guarded: Server, lines: list[str]) -> None:
    assert one(guarded, post(f"Cookie: sse_token={TOKEN}", *lines)).status == 403
    # With the token in a header, the same request is allowed.
    assert one(guarded, post(f"Authorization: Bearer {TOKEN}", *lines)).status == 201


def test_an_allowed_page_can_publish_with_the_cookie(guarded: Server) -> None:
    assert one(guarded, post(f"Cookie: sse_token={TOKEN}", f"Origin: {ORIGIN}")).status == 201
    assert one(guarded, post(f"Cookie: sse_token={TOKEN}", "Origin: http://localhost")).status == 201


def test_a_foreign_page_cannot_read_with_the_cookie(guarded: Server) -> None:
    """The browser sends the cookie, but CORS keeps the response from the page."""
    octets = request("/events/private", f"Cookie: sse_token={TOKEN}", "Origin: https://evil.test", method="HEAD")
    reply = one(guarded, octets)
    assert reply.header("access-control-allow-origin") is None
    assert reply.header("access-control-allow-credentials") is None
    assert reply.header("vary") == "Origin", "a cache must not hand one page's answer to another"


def test_our_pages_run_no_inline_scripts_and_cannot_be_framed(open_server: Server) -> None:
    for target in ("/", "/openapi.json", "/console/main.js"):
        reply = one(open_server, request(target))
        policy = reply.header("content-security-policy") or ""
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert reply.header("x-content-type-options") == "nosniff"


def test_publishing_is_closed_if_the_command_line_listens_on_the_network(start_server: StartServer) -> None:
    """HOST is 127.0.0.1, but ``-b`` overrides it: the real listener counts."""
    port, health = ReservedPort(), ReservedPort()
    listen = ("-b", f"0.0.0.0:{port.number}", "-b", f"127.0.0.1:{health.number}")
    server = start_server(*listen, HOST="127.0.0.1", PORT=port.number, HEALTH_PORT=health.number)
    reply = one(server, post())
    assert reply.status == 403 and b"SSE_PUBLISH_KEY" in reply.body
    assert server.log_text().count("publishing is closed") == 1
    port.release()
    health.release()
