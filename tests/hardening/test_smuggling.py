"""Request smuggling: however a proxy reads them, bytes of one request never become another.

Each attack hides a publish to the channel ``smuggled``. It must get no response, and nothing may be stored.
The plain cases (two lengths, both framings, a folded header) are in tests/live/raw/syntax.py, against Go as well.
"""

from __future__ import annotations

import pytest

from tests.hardening.wire import ask, exchange, history, request
from tests.support.server import Server

SMUGGLED = request("/events/smuggled", "Content-Length: 3", "Connection: close", method="POST", body=b"yes")
LENGTH = len(b"0\r\n\r\n" + SMUGGLED)


def hidden(*lines: str | bytes, target: str = "/events/carrier", body: bytes = b"0\r\n\r\n", method: str = "POST") -> bytes:
    """Build a request with these framing lines. For one of two parsers, its body ends where the hidden request begins."""
    return request(target, *lines, method=method, body=body + SMUGGLED)


def chunked(body: bytes) -> bytes:
    """Build a chunked request with this body, followed by the hidden one."""
    return hidden("Transfer-Encoding: chunked", body=body)


BOTH = f"Content-Length: {LENGTH}"

REFUSED = {
    # CL.TE and TE.CL, and spellings of Transfer-Encoding that only one of two parsers accepts.
    "CL.TE": hidden(BOTH, "Transfer-Encoding: chunked"),
    "TE.CL": hidden("Transfer-Encoding: chunked", "Content-Length: 4", body=b"5c\r\n"),
    "CL 0, TE": hidden("Content-Length: 0", "Transfer-Encoding: chunked"),
    "TE after a tab": hidden(BOTH, "Transfer-Encoding:\tchunked"),
    "TE in capitals": hidden(BOTH, "TRANSFER-ENCODING: CHUNKED"),
    "TE before a space": hidden(BOTH, "Transfer-Encoding : chunked"),
    "TE before a tab": hidden(BOTH, "Transfer-Encoding\t: chunked"),
    "TE after a vertical tab": hidden(BOTH, "Transfer-Encoding:\x0bchunked"),
    "TE before a form feed": hidden(BOTH, "Transfer-Encoding: chunked\x0c"),
    "TE before NUL": hidden(BOTH, "Transfer-Encoding: chunked\0"),
    "TE in quotes": hidden(BOTH, 'Transfer-Encoding: "chunked"'),
    "TE with a parameter": hidden(BOTH, "Transfer-Encoding: chunked;q=1"),
    "TE that begins like chunked": hidden(BOTH, "Transfer-Encoding: chunkedx"),
    "TE that ends like chunked": hidden(BOTH, "Transfer-Encoding: xchunked"),
    "TE identity": hidden(BOTH, "Transfer-Encoding: identity"),
    "TE chunked, then identity": hidden("Transfer-Encoding: chunked, identity"),
    "TE identity, then chunked": hidden("Transfer-Encoding: identity, chunked"),
    "TE chunked twice in a list": hidden("Transfer-Encoding: chunked, chunked"),
    "TE chunked twice in lines": hidden("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "TE chunked and nothing": hidden("Transfer-Encoding: chunked,"),
    "TE empty": hidden(BOTH, "Transfer-Encoding:"),
    "TE in two lines that differ": hidden("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "TE in a folded line": hidden(BOTH, "Transfer-Encoding:\r\n chunked"),
    "TE in a line folded with a tab": hidden(BOTH, "X: y\r\n\tTransfer-Encoding: chunked"),
    "TE behind a bare LF": hidden(BOTH, "X: y\nTransfer-Encoding: chunked"),
    "TE behind a bare CR": hidden(BOTH, "X: y\rTransfer-Encoding: chunked"),
    "TE that no Latin letter begins": hidden(BOTH, b"\xef\xbc\xb4ransfer-Encoding: chunked"),
    "TE with a NUL in its name": hidden(BOTH, "Transfer\0Encoding: chunked"),
    "TE gzip": hidden(BOTH, "Transfer-Encoding: gzip"),
    "a header line without a colon": hidden(BOTH, "Transfer-Encoding chunked"),
    "a space before the first header": b"POST /events/carrier HTTP/1.1\r\n Host: localhost\r\n" + BOTH.encode() + b"\r\n\r\n",
    "an empty header name": hidden(BOTH, ": chunked"),
    # Content-Length.
    "CL twice in a list": hidden("Content-Length: 5, 5"),
    "CL twice, first less": hidden("Content-Length: 0", BOTH),
    "CL in hexadecimal": hidden("Content-Length: 0x5"),
    "CL with an underscore": hidden("Content-Length: 1_0"),
    "CL with a space inside": hidden("Content-Length: 1 0"),
    "CL with an exponent": hidden("Content-Length: 1e1"),
    "CL of a fraction": hidden("Content-Length: 5.0"),
    "CL of full-width digits": hidden(b"Content-Length: \xef\xbc\x95"),
    "CL of a superscript": hidden(b"Content-Length: \xb2"),
    "CL empty": hidden("Content-Length:"),
    "CL in a folded line": hidden("Content-Length: 5\r\n 0"),
    "CL behind a bare LF": hidden("X: y\nContent-Length: 5"),
    "CL before NUL": hidden("Content-Length: 5\0"),
    # The request line.
    "a tab in the request line": b"POST\t/events/carrier\tHTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a bare LF after the request line": b"POST /events/carrier HTTP/1.1\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a bare CR in the request line": b"POST /events/carrier\rX HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /events/carrier\r\n\r\n" + SMUGGLED,
    "HTTP/1.10": b"GET /events/carrier HTTP/1.10\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a method with a line end": b"PO\r\nST /events/carrier HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "the PROXY protocol": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + SMUGGLED,
    # Chunks.
    "a chunk size in 0x": chunked(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a plus": chunked(b"+3\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": chunked(b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with an underscore": chunked(b"0_3\r\nabc\r\n0\r\n\r\n"),
    "no chunk size": chunked(b"\r\nabc\r\n0\r\n\r\n"),
    "no chunk size before an extension": chunked(b";x\r\nabc\r\n0\r\n\r\n"),
    "a space before a chunk size": chunked(b" 3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size of full-width digits": chunked(b"\xef\xbc\x93\r\nabc\r\n0\r\n\r\n"),
    "a bare LF after a chunk size": chunked(b"3\nabc\r\n0\r\n\r\n"),
    "a bare CR after a chunk size": chunked(b"3\rabc\r\n0\r\n\r\n"),
    "a bare LF in a chunk extension": chunked(b"3;x\ny\r\nabc\r\n0\r\n\r\n"),
    "a bare CR in a chunk extension": chunked(b"3;x\ry\r\nabc\r\n0\r\n\r\n"),
    "NUL in a chunk extension": chunked(b"3;x\0y\r\nabc\r\n0\r\n\r\n"),
    "a chunk longer than it says": chunked(b"3\r\nabcd\r\n0\r\n\r\n"),
    "a chunk that ends with a bare LF": chunked(b"3\r\nabc\n0\r\n\r\n"),
    "a chunk that ends with two other bytes": chunked(b"3\r\nabcXX0\r\n\r\n"),
    "a chunk size beyond 64 bits": chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "a last chunk with a bare LF": chunked(b"3\r\nabc\r\n0\n\r\n"),
    "a chunk extension of 100 KB": chunked(b"3;" + b"x" * 100_000 + b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk size of 100,000 zeros": chunked(b"0" * 100_000 + b"3\r\nabc\r\n0\r\n\r\n"),
    "a trailer with a bare LF": chunked(b"3\r\nabc\r\n0\r\nX: y\nZ: z\r\n\r\n"),
    "a trailer without a colon": chunked(b"3\r\nabc\r\n0\r\nnonsense\r\n\r\n"),
    "a folded trailer": chunked(b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n"),
    "a trailer with NUL": chunked(b"3\r\nabc\r\n0\r\nX: \0\r\n\r\n"),
    "trailers of a megabyte": chunked(b"3\r\nabc\r\n0\r\n" + b"X: yyyyyyyyy\r\n" * 80_000 + b"\r\n"),
}


@pytest.mark.parametrize("octets", [pytest.param(octets, id=name) for name, octets in REFUSED.items()])
def test_a_request_that_two_parsers_could_read_differently_is_the_last_on_its_connection(
    open_server: Server, octets: bytes
) -> None:
    found = ask(open_server, octets)
    assert [reply.status // 100 for reply in found] in ([4], [5]), found
    assert found[0].status in (400, 408, 413, 414, 431, 501, 505)
    assert found[0].header("connection") == "close"
    assert history(open_server, "smuggled") == []


BODY = len(SMUGGLED)
NEXT = request("/nowhere")  # its 404 differs from all other responses

READ_AS_ONE = {
    # A body that looks like a request, whether the route reads it or not.
    "in the body of a GET": (request("/openapi.json", f"Content-Length: {BODY}", body=SMUGGLED) + NEXT, [200, 404]),
    "in the body of a PUT": (
        request("/events/x", f"Content-Length: {BODY}", method="PUT", body=SMUGGLED) + NEXT,
        [405, 404],
    ),
    "in the body of an OPTIONS": (
        request("/events/x", f"Content-Length: {BODY}", method="OPTIONS", body=SMUGGLED) + NEXT,
        [204, 404],
    ),
    "in the body of a 404": (request("/none", f"Content-Length: {BODY}", method="POST", body=SMUGGLED) + NEXT, [404, 404]),
    "in the body of a 400": (
        request("/events/%25", f"Content-Length: {BODY}", method="POST", body=SMUGGLED) + NEXT,
        [400, 404],
    ),
    "in the body of a 415": (request("/events", f"Content-Length: {BODY}", method="POST", body=SMUGGLED) + NEXT, [415, 404]),
    "in the body of a 403": (
        request("/events/x", f"Content-Length: {BODY}", "Origin: http://evil.test", method="POST", body=SMUGGLED) + NEXT,
        [403, 404],
    ),
    "in a chunk of a 404": (
        request("/none", "Transfer-Encoding: chunked", method="POST", body=b"%x\r\n%b\r\n0\r\n\r\n" % (BODY, SMUGGLED)) + NEXT,
        [404, 404],
    ),
    "in the body of a publish": (
        request("/events/carrier", f"Content-Length: {BODY}", method="POST", body=SMUGGLED) + NEXT,
        [201, 404],
    ),
    "in a body that is promised longer": (
        request("/events/carrier", "Content-Length: 9999", method="POST", body=SMUGGLED),
        [400],
    ),
    "behind a body too large": (
        request("/events/carrier", "Content-Length: 99999999999999999999", method="POST", body=SMUGGLED),
        [413],
    ),
    "in a body with an Expect": (
        request("/none", f"Content-Length: {BODY}", "Expect: 100-continue", method="POST", body=SMUGGLED) + NEXT,
        [404],
    ),
    # Legal requests, which we must read as every other parser does.
    "a length with zeros before it": (
        request("/events/carrier", "Content-Length: 003", method="POST", body=b"abc") + NEXT,
        [201, 404],
    ),
    "chunk extensions": (
        request("/events/carrier", "Transfer-Encoding: chunked", method="POST", body=b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n')
        + NEXT,
        [201, 404],
    ),
    "a last chunk of many zeros": (
        request("/events/carrier", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabc\r\n000\r\n\r\n") + NEXT,
        [201, 404],
    ),
    "trailers": (
        request("/events/carrier", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabc\r\n0\r\nX: y\r\n\r\n") + NEXT,
        [201, 404],
    ),
    "trailers that would frame": (
        request(
            "/events/carrier",
            "Transfer-Encoding: chunked",
            method="POST",
            body=b"3\r\nabc\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        + NEXT,
        [400],
    ),
    # Underscores become dashes in WSGI's names.
    "an underscore in Transfer_Encoding": (
        request("/events/carrier", "Content-Length: 3", "Transfer_Encoding: chunked", method="POST", body=b"abc") + NEXT,
        [201, 404],
    ),
    "an underscore in Content_Length": (
        request("/events/carrier", "Content-Length: 3", "Content_Length: 99", method="POST", body=b"abc") + NEXT,
        [201, 404],
    ),
    # Upgrades, which a proxy may pass on as tunnels.
    "an upgrade to h2c": (
        request("/openapi.json", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAA") + NEXT,
        [200, 404],
    ),
    "an upgrade to a WebSocket": (
        request("/openapi.json", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13") + NEXT,
        [400, 404],  # from Werkzeug: none of our routes is for WebSockets
    ),
}


@pytest.mark.parametrize(
    ("octets", "statuses"), [pytest.param(*case, id=name) for name, case in READ_AS_ONE.items()]
)
def test_a_body_is_never_read_as_a_request(open_server: Server, octets: bytes, statuses: list[int]) -> None:
    assert [reply.status for reply in ask(open_server, octets)] == statuses
    assert history(open_server, "smuggled") == []


def test_requests_after_that_of_a_stream_are_neither_answered_nor_part_of_it(open_server: Server) -> None:
    answer = exchange(open_server.port, request("/events/quiet") + SMUGGLED + request("/openapi.json"))
    assert answer.startswith(b"HTTP/1.1 200 ") and b"text/event-stream" in answer
    assert answer.count(b"HTTP/1.1") == 1 and b"openapi" not in answer and b"yes" not in answer
    assert history(open_server, "smuggled") == []


def test_a_trailer_is_not_a_header(guarded: Server) -> None:
    """Otherwise somebody who can only add to a body could add credentials, or an idempotency key."""
    from tests.hardening.conftest import HS_KEY
    from tests.sse.auth.fakes import claims, hs256

    token = hs256(claims(publish=["*"]), HS_KEY)
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n"
    found = ask(guarded, request("/events/x", "Transfer-Encoding: chunked", method="POST", body=body))
    assert [reply.status for reply in found] == [401]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK", "PROPFIND"])
def test_methods_that_echo_or_tunnel_are_refused(open_server: Server, method: str) -> None:
    for target in ("/", "/events/x", "/openapi.json"):
        (reply,) = ask(open_server, request(target, "X-Secret: echo-me", method=method))
        assert reply.status in (400, 405) and b"echo-me" not in reply.body
