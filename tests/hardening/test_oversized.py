"""Oversized requests, and bodies that claim to be compressed."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.hardening.wire import alive, exchange, history, one, replies, request
from tests.live.observe import resident_bytes
from tests.support.server import Server

MB = 1_000_000

OVERSIZED = {
    "a path of a megabyte": b"GET /" + b"a" * MB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a channel of a megabyte": b"GET /events/" + b"a" * MB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a channel of 129": request("/events/" + "a" * 129),
    "a query of a megabyte": b"GET /events?" + b"channel=a&" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "65 channels": request("/events?" + "channel=a&" * 65),
    "3,000 parameters without a name": request("/events?" + "&=" * 3000),
    "a method of a megabyte": b"A" * MB + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a version of a megabyte": b"GET / HTTP/1." + b"1" * MB + b"\r\nHost: localhost\r\n\r\n",
    "a header name of a megabyte": request("/", "X" * MB + ": y"),
    "a header value of a megabyte": request("/", "X: " + "y" * MB),
    "100,000 headers": request("/", *["X: y"] * 100_000),
    "101 headers": request("/", *["X: y"] * 100),
    "a Host of 8 KB": b"POST /events/a HTTP/1.1\r\nContent-Length: 1\r\nHost: " + b"a" * 8000 + b"\r\n\r\nx",
    "a cookie of 15 KB on top": request("/", "Cookie: " + "a=b;" * 5000),
    "an Idempotency-Key of 8 KB": request("/events/a", "Idempotency-Key: " + "k" * 8000, "Content-Length: 1", method="POST", body=b"x"),
    "a type of 1,025": request("/events/a?event=" + "t" * 1025, "Content-Length: 1", method="POST", body=b"x"),
    "a retry of 4,000 digits": request("/events/a?retry=" + "9" * 4000, "Content-Length: 1", method="POST", body=b"x"),
    "an X-Forwarded-For of 2,000 hops from here": request("/events/a", "X-Forwarded-For: " + "1.1.1.1," * 1900, "Content-Length: 1", method="POST", body=b"x"),
    "a length of 4,000 digits": request("/events/a", "Content-Length: " + "9" * 4000, method="POST", body=b"x"),
    "a line of NDJSON of a megabyte": request(
        "/events", "Content-Type: application/x-ndjson", f"Content-Length: {MB + 27}", method="POST", body=b'{"channel":"a","data":"' + b"x" * MB + b'"}  '
    ),
    "a batch of empty lines and one event too many": request(
        "/events", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked", method="POST",
        body=b"%x\r\n%b\r\n0\r\n\r\n" % (10_001 * 26, b'{"channel":"a","data":""}\n' * 10_001),
    ),
    "a multipart form": request(
        "/events", "Content-Type: multipart/form-data; boundary=x", "Content-Length: 100000", method="POST", body=b"--x\r\n" * 20_000
    ),
}


@pytest.mark.parametrize("octets", [pytest.param(octets, id=name) for name, octets in OVERSIZED.items()])
def test_an_oversized_request_gets_a_small_refusal(open_server: Server, octets: bytes) -> None:
    answer = exchange(open_server.port, octets)
    if answer:  # a client that still sends may get a reset before the response
        assert replies(answer)[0].status in (400, 403, 413, 414, 415, 431), answer[:200]
        assert len(answer) < 2000
    alive(open_server)


PLAIN = b"x" * 10 * MB


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", gzip.compress(PLAIN), id="gzip"),
        pytest.param("deflate", zlib.compress(PLAIN), id="deflate"),
        pytest.param("br", b"\xcf\xff\xff\x7f\xf8\x27\x00\xe2\xb1\x40\x20\xf0\xff", id="br"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(PLAIN)), id="gzip twice"),
        pytest.param("identity", b"\x1f\x8b\x08", id="identity"),
    ],
)
def test_no_body_is_decompressed(open_server: Server, coding: str, body: bytes) -> None:
    """A bomb of 10 KB that decompresses to 10 MB stays 10 KB of bytes that are not UTF-8."""
    (worker,) = open_server.worker_pids()
    before = resident_bytes(worker)
    for target, more in (("/events/zip", []), ("/events", ["Content-Type: application/x-ndjson"])):
        lines = (f"Content-Encoding: {coding}", f"Content-Length: {len(body)}", *more)
        assert one(open_server, request(target, *lines, method="POST", body=body)).status in (400, 415)
    assert resident_bytes(worker) - before < 8e6
    assert history(open_server, "zip") == []


def test_no_response_is_compressed(guarded: Server) -> None:
    """An attacker who can add text to a compressed response can guess a secret in it by its size (BREACH)."""
    for target in ("/", "/openapi.json", "/events/private"):
        reply = one(guarded, request(target, "Accept-Encoding: gzip, deflate, br, zstd"))
        assert reply.header("content-encoding") is None


def test_text_that_looks_compressed_is_unchanged(open_server: Server) -> None:
    body = json.dumps({"x": 1}).encode()
    octets = request("/events/zip2", "Content-Encoding: gzip", f"Content-Length: {len(body)}", method="POST", body=body)
    if one(open_server, octets).status == 201:
        assert [event.data for event in history(open_server, "zip2")] == [body.decode()]
