"""Sends raw bytes to the server and parses all its responses."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Mapping
from typing import NamedTuple

from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.sse_parser import StreamEvent

_numbers = itertools.count()


class Reply(NamedTuple):
    """One of the responses on a connection."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the value of a header. Raises AssertionError if it occurs twice."""
        found = [value for known, value in self.headers if known == name]
        assert len(found) <= 1, f"{name} is there {len(found)} times"
        return found[0] if found else None


def request(target: str = "/openapi.json", *lines: str | bytes, method: str = "GET", body: bytes = b"") -> bytes:
    """Build a request from exactly these lines; only Host and the line ends are added, and nothing is escaped."""
    fields = b"".join((line if isinstance(line, bytes) else line.encode("latin-1")) + b"\r\n" for line in lines)
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n".encode("latin-1") + fields + b"\r\n" + body


def exchange(
    port: int, octets: bytes, *, half_close: bool = True, source: str = "127.0.0.1", timeout: float = 8.0
) -> bytes:
    """Send from the address ``source``, shut down our side, and read until the server closes.

    Raises TimeoutError if the server does not close within ``timeout`` seconds.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0)) as sock:

        def send() -> None:
            # The server may close while we still send.
            with contextlib.suppress(OSError):
                sock.sendall(octets)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        answer = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(65536):
                answer += piece
        sender.join(timeout)
        return bytes(answer)


def replies(answer: bytes) -> list[Reply]:
    """Parse all responses of a connection (RFC 9112 §6.3).

    Raises AssertionError if the bytes are anything but complete responses.
    """
    found = []
    while answer:
        head, end, answer = answer.partition(b"\r\n\r\n")
        assert end, f"no end of the head in {head[:200]!r}"
        status_line, *lines = head.decode("latin-1").split("\r\n")
        assert status_line.startswith("HTTP/1.1 "), status_line[:200]
        status = int(status_line.split(" ", 2)[1])
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            assert colon and name == name.strip() and not set(line) & set("\r\n\0"), f"bad line {line!r}"
            headers.append((name.lower(), value.strip()))
        fields = dict(headers)
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while True:
                size, _, answer = answer.partition(b"\r\n")
                count = int(size, 16)
                body, answer = body + answer[:count], answer[count:]
                assert answer.startswith(b"\r\n"), answer[:100]
                answer = answer[2:]
                if not count:
                    break
        elif status != 204:
            length = int(fields.get("content-length", len(answer)))
            body, answer = answer[:length], answer[length:]
        found.append(Reply(status, headers, body))
    return found


def ask(server: Server, octets: bytes, *, source: str = "127.0.0.1", half_close: bool = True) -> list[Reply]:
    """:func:`exchange` and :func:`replies` on the main port."""
    return replies(exchange(server.port, octets, source=source, half_close=half_close))


def one(server: Server, octets: bytes, *, source: str = "127.0.0.1") -> Reply:
    """Return the only response."""
    (reply,) = ask(server, octets, source=source)
    return reply


def history(server: Server, channel: str, headers: Mapping[str, str] | None = None) -> list[StreamEvent]:
    """Return all events of a channel: publish a mark and read up to it."""
    mark = f"mark-{next(_numbers)}"
    server.publish(channel, mark, **{name.replace("-", "_"): value for name, value in (headers or {}).items()})
    with SSEClient(server.port, f"/events/{channel}?since=earliest", headers=headers) as client:
        seen = client.events_until(lambda event: event.data == mark, 10)
    return [event for event in seen if not event.is_control and not (event.data or "").startswith("mark-")]


def alive(server: Server) -> None:
    """Check that the server answers probes and has logged no traceback."""
    assert server.request("GET", "/healthz", port=server.health_port).status == 200
    log = server.log_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:4000]
