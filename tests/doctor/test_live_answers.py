"""Answers of every kind, byte by byte, and what the live checks find in them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from health.doctor import cli
from tests.support.scripted_server import ScriptedServer

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
CHUNKED = STREAM + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def doctor(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, str]]:
    def run(*arguments: str) -> dict[str, str]:
        url = f"http://127.0.0.1:{server.port}/events"
        status = cli.main([each.replace("URL", url) for each in arguments] + ["--format", "json"])
        output = capsys.readouterr()
        assert status in (0, 1), output.err
        return {finding["id"]: finding["severity"] for finding in json.loads(output.out)["findings"]}

    return run


def says(*pieces: bytes, hold: bool = False) -> Callable[[socket.socket], None]:
    """Send the pieces; hold: keep the connection open until the client has gone."""

    def script(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
        if hold:
            connection.recv(1)

    return script


STREAMS = [
    pytest.param(says(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), {"HW701"}, id="status 500"),
    pytest.param(says(b"HTTP/1.1 204 No Content\r\n\r\n"), {"HW701"}, id="status 204"),
    pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"), {"HW701"}, id="JSON"),
    pytest.param(says(STREAM.replace(b"1.1", b"1.0", 1) + b"\r\nretry: 1\ndata: x\nid: 1\n\n", hold=True), {"HW704", "HW705"}, id="HTTP/1.0"),
    pytest.param(says(STREAM + b"Content-Length: 10000\r\n\r\nretry: 1\n\n", hold=True), {"HW704", "HW705"}, id="a length"),
    pytest.param(says(CHUNKED + chunk(b"data: x\n\n")), {"HW706", "HW707", "HW711"}, id="torn"),
    pytest.param(says(CHUNKED + chunk(b"retry: 1\nid: 1\ndata: x\n\n") + b"0\r\n\r\n"), {"HW711"}, id="ended cleanly"),
    pytest.param(says(CHUNKED + chunk(b"retry: 1\n\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n"), hold=True), {"HW705"}, id="a stream that is silent then"),
    pytest.param(says(CHUNKED.replace(b"Cache-Control: no-cache\r\n", b"") + chunk(b"retry: 1\n\n"), hold=True), {"HW703", "HW705"}, id="cacheable"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "rules"), STREAMS)
def test_a_streams_answer(script: Callable[[socket.socket], None], rules: set[str], server: ScriptedServer, doctor: Callable[..., dict[str, str]]) -> None:
    server.script = script
    assert set(doctor("--url", "URL", "--patience", "1")) == rules


def test_a_stream_that_starts_again_from_the_beginning_does_not_resume(server: ScriptedServer, doctor: Callable[..., dict[str, str]]) -> None:
    """The second connection gets other events than those that followed the first one's first."""
    first = chunk(b"retry: 1\n\nid: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n")
    again = chunk(b"retry: 1\n\nid: 8\ndata: h\n\nid: 9\ndata: i\n\nid: 10\ndata: j\n\n")

    def script(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + (again if b"Last-Event-ID: 1\r\n" in server.requests[-1] else first))
        connection.recv(1)

    server.script = script
    assert doctor("--url", "URL", "--patience", "1").get("HW712") == "risks"


def test_a_compressed_stream_that_says_nothing_is_held_back(server: ScriptedServer, doctor: Callable[..., dict[str, str]]) -> None:
    plain = CHUNKED + chunk(b"retry: 1\nid: 1\ndata: x\n\n")
    packed = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + chunk(bytes.fromhex("1f8b0800000000000003"))

    def script(connection: socket.socket) -> None:
        connection.sendall(packed if b"Accept-Encoding: gzip" in server.requests[-1] else plain)
        connection.recv(1)

    server.script = script
    assert doctor("--url", "URL", "--patience", "1").get("HW713") == "risks"


def late(seconds: float, answer: bytes) -> Callable[[socket.socket], None]:
    def script(connection: socket.socket) -> None:
        time.sleep(seconds)
        connection.sendall(answer)

    return script


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
PROBES = [
    pytest.param(says(OK), {}, id="as it should be"),
    pytest.param(says(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), {}, id="no content"),
    pytest.param(says(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), {}, id="a redirection is success"),
    pytest.param(says(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), {"HW731": "breaks"}, id="503"),
    pytest.param(says(OK + b"more"), {"HW735": "risks"}, id="too long"),
    pytest.param(says(OK.replace(b"th: 3", b"th: 9")), {"HW735": "risks"}, id="too short"),
    pytest.param(says(OK.replace(b"Connection: close\r\n", b"")), {"HW736": "note"}, id="kept"),
    pytest.param(late(0.7, OK), {"HW733": "risks"}, id="slow"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "found"), PROBES)
def test_a_probes_answer(
    script: Callable[[socket.socket], None], found: dict[str, str], server: ScriptedServer, doctor: Callable[..., dict[str, str]]
) -> None:
    server.script = script
    assert doctor("--probe-url", "URL") == found


def test_headers_are_sent_and_nothing_more_is_opened(server: ScriptedServer, doctor: Callable[..., dict[str, str]]) -> None:
    server.script = says(CHUNKED + chunk(b"retry: 1\nid: 1\ndata: x\n\n"), hold=True)
    doctor("--url", "URL", "--patience", "1", "--header", "Authorization: Bearer x")
    assert len(server.requests) == 2
    assert all(b"\r\nAuthorization: Bearer x\r\n" in request for request in server.requests)
