"""TLS on the listeners: a generator serves the same streams, because a taken-over socket could not encrypt."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.live.observe import access_log, stream_lines
from tests.support.programs import require_program
from tests.support.server import Server
from tests.support.sse_client import Ending
from tests.support.sse_parser import ChunkedDecoder, EventParser, StreamEvent
from tests.support.wait import eventually

HEADER_TIMEOUT, WRITE_TIMEOUT = 0.7, 1.0  # seconds


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    openssl = require_program("openssl", "openssl")
    place = tmp_path_factory.mktemp("tls")
    certificate, key = place / "cert.pem", place / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *words.split(), *names], check=True, capture_output=True, timeout=30)
    return certificate, key


class TLSServer:
    """The service behind a certificate, and clients that trust it."""

    def __init__(self, certificate: tuple[Path, Path], **env: Any) -> None:
        path, key = certificate
        self.context = ssl.create_default_context(cafile=str(path))
        self.server = Server("--certfile", str(path), "--keyfile", str(key), **env)

    def __enter__(self) -> Self:
        self.server.start(ready=False)
        eventually(self._has_started, 20, lambda: self.server.log_tail())
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.close()

    def _has_started(self) -> bool:
        with contextlib.suppress(OSError):
            return self.request("GET", "/startupz", port=self.server.health_port)[0] == 200
        return False

    def request(self, method: str, path: str, body: bytes | None = None, port: int = 0) -> tuple[int, bytes]:
        """Send a request; return the answer's status and body."""
        port = port or self.server.port
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=self.context)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()

    def publish(self, channel: str, data: str) -> str:
        status, body = self.request("POST", f"/events/{channel}", data.encode())
        assert status == 201, body
        return str(json.loads(body)["id"])

    def stream(self, target: str, **options: int) -> TLSStream:
        return TLSStream(self, target, **options)


class TLSStream:
    """One stream; a context manager."""

    def __init__(self, server: TLSServer, target: str, *, receive_buffer: int | None = None) -> None:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(5)
        sock.connect(("127.0.0.1", server.server.port))
        # An end without a close_notify is an error then: it could be anybody's who can write to the wire.
        self.socket = server.context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._chunked, self._parser = ChunkedDecoder(), EventParser()
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(65536)
        self.head, _, rest = head.partition(b"\r\n\r\n")
        self._blocks = self._parser.feed(self._chunked.feed(rest))

    def next_event(self) -> StreamEvent:
        while not self._blocks:
            piece = self.socket.recv(65536)
            assert piece, "the stream has ended"
            self._blocks += self._parser.feed(self._chunked.feed(piece))
        return self._blocks.pop(0)

    def read_to_end(self) -> tuple[list[StreamEvent], Ending]:
        """Return all remaining blocks, and how the stream ended."""
        ending = Ending.CUT
        with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
            while piece := self.socket.recv(65536):
                self._blocks += self._parser.feed(self._chunked.feed(piece))
            if self._chunked.terminated:
                ending = Ending.TERMINATED
        return self._blocks, ending

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def secure(certificate: tuple[Path, Path]) -> Iterator[TLSServer]:
    with TLSServer(
        certificate, SSE_READ_HEADER_TIMEOUT=HEADER_TIMEOUT, SSE_WRITE_TIMEOUT=WRITE_TIMEOUT, SSE_HEARTBEAT=600
    ) as server:
        yield server


def ended(secure: TLSServer, channel: str, within: float) -> dict[str, str]:
    """Wait for the access log's line about a channel's one stream."""

    def found() -> list[dict[str, str]]:
        return [line for line in stream_lines(secure.server) if line["channels"] == channel]

    (line,) = eventually(found, within, lambda: f"{stream_lines(secure.server)}")
    return line


def test_a_stream_works_over_tls_and_the_log_says_once_that_it_is_not_taken_over(secure: TLSServer) -> None:
    first = secure.publish("works", "before")
    with secure.stream("/events/works?since=earliest") as stream, secure.stream("/events/works") as other:
        opening = stream.next_event()
        assert opening.id and opening.is_opening
        assert b"\r\nTransfer-Encoding: chunked" in stream.head
        assert stream.next_event().id == first
        other.next_event()
        sent = [secure.publish("works", f"{number}") for number in range(30)]
        for one in (stream, other):
            assert [one.next_event().id for _ in sent] == sent
    said = [line for line in secure.server.log_text().splitlines() if "TLS on the listener" in line]
    assert len(said) == 1 and "takeover" in said[0]


def test_a_client_that_closes_is_noticed_and_has_one_line(secure: TLSServer) -> None:
    with secure.stream("/events/leaves") as stream:
        stream.next_event()
        secure.publish("leaves", "x")
        assert stream.next_event().data == "x"
    line = ended(secure, "leaves", 1.2)
    assert (line["reason"], line["events"]) == ("client", "1")
    secure.request("GET", "/openapi.json")
    about = [(one["kind"], one.get("method")) for one in access_log(secure.server) if "leaves" in f"{one}"]
    assert sorted(about) == [("request", "POST"), ("stream", None)]


SILENCE = [
    pytest.param(b"", id="says nothing"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="stops in the middle of its hello"),
]


@pytest.mark.parametrize("octets", SILENCE)
def test_a_handshake_that_does_not_end_is_bounded_by_the_header_timeout(secure: TLSServer, octets: bytes) -> None:
    with socket.create_connection(("127.0.0.1", secure.server.port), timeout=5) as sock:
        began = time.monotonic()
        sock.sendall(octets)
        assert sock.recv(100) == b""
        assert HEADER_TIMEOUT - 0.1 < time.monotonic() - began < HEADER_TIMEOUT + 1.5


def test_plain_http_is_answered_with_an_end_and_no_traceback(secure: TLSServer) -> None:
    with socket.create_connection(("127.0.0.1", secure.server.port), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass
    assert secure.request("GET", "/healthz", port=secure.server.health_port)[0] == 200
    assert "Traceback" not in secure.server.log_text()


def test_a_reader_that_stalls_is_closed_after_the_write_timeout(secure: TLSServer) -> None:
    with secure.stream("/events/stalls", receive_buffer=4096) as stream:
        stream.next_event()
        for _ in range(60):
            secure.publish("stalls", "x" * 60_000)
        line = ended(secure, "stalls", WRITE_TIMEOUT + 3)
        assert line["reason"] == "write-timeout"
        _, ending = stream.read_to_end()
        assert not ending.clean


def test_a_drain_ends_streams_cleanly(certificate: tuple[Path, Path]) -> None:
    with TLSServer(certificate, SSE_DRAIN_DELAY=0.2, SSE_DRAIN_WINDOW=1) as secure, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(secure.stream("/events/a")) for _ in range(10)]
        for stream in streams:
            stream.next_event()
        name = secure.publish("a", "owed")
        secure.server.terminate()
        began = time.monotonic()
        for stream in streams:
            blocks, ending = stream.read_to_end()
            assert ending is Ending.TERMINATED
            assert blocks[0].id == name and blocks[-1].retry is not None
        assert secure.server.wait(8) == 0
        assert time.monotonic() - began < 1.2 + 4.5
        assert [line["reason"] for line in stream_lines(secure.server)] == ["drain"] * 10


def test_all_requests_of_one_tls_record_are_answered(secure: TLSServer) -> None:
    """The socket no longer shows bytes that TLS has decrypted: a wait for the socket would wait for the next record."""
    size, count = 512, 24  # a record of 12 KB, read in pieces of 8 KB: one ends where a request does
    plain = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nX-Fill: {}\r\n\r\n"
    request = plain.format("x" * (size - len(plain) + 2)).encode()
    assert len(request) == size
    sock = socket.create_connection(("127.0.0.1", secure.server.port), timeout=3)
    with secure.context.wrap_socket(sock, server_hostname="127.0.0.1") as connection:
        connection.sendall(request * count)
        came = b""
        while came.count(b"HTTP/1.1 200 ") < count:
            piece = connection.recv(65536)
            assert piece, came.count(b"HTTP/1.1 200 ")
            came += piece
