"""The PROXY protocol: the client that a load balancer names applies to all requests of the connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.live.observe import access_log
from tests.live.raw.case import post
from tests.support.server import Server
from tests.support.wait import eventually

CLIENT = "9.9.9.9"
V1 = f"PROXY TCP4 {CLIENT} 10.0.0.1 4000 8080\r\n".encode()
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2 = SIGNATURE + b"\x21\x11" + struct.pack(">H", 12) + bytes([9, 9, 9, 9, 10, 0, 0, 1]) + struct.pack(">HH", 4000, 8080)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"  # the load balancer's own connection
UNSPEC = SIGNATURE + b"\x21\x01\x00\x00"  # it does not know for whom


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("--proxy-protocol", "auto") as running:
        yield running


def statuses(server: Server, line: bytes, *, pipelined: bool) -> list[bytes]:
    """Return the statuses of three publishes on one connection, with the PROXY line before the first."""
    request = post("a", b"x")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock, sock.makefile("rb") as answers:
        found = []
        sock.sendall(line + (request * 3 if pipelined else b""))
        for _ in range(3):
            if not pipelined:
                sock.sendall(request)
            status, length = answers.readline().split()[1], 0
            while (field := answers.readline().strip().lower()) != b"":
                if field.startswith(b"content-length:"):
                    length = int(field.partition(b":")[2])
            answers.read(length)
            found.append(status)
        return found


@pytest.mark.parametrize("pipelined", [pytest.param(False, id="in turns"), pytest.param(True, id="pipelined")])
@pytest.mark.parametrize(
    ("line", "client", "status"),
    [
        pytest.param(V1, CLIENT, b"403", id="v1"),
        pytest.param(V2, CLIENT, b"403", id="v2"),
        pytest.param(LOCAL, "unknown", b"403", id="v2, the load balancer itself"),
        pytest.param(UNSPEC, "unknown", b"403", id="v2, nobody knows"),
        pytest.param(b"", "127.0.0.1", b"201", id="none"),
    ],
)
def test_the_proxy_lines_client_applies_to_every_request_of_the_connection(
    server: Server, line: bytes, client: str, status: bytes, pipelined: bool
) -> None:
    """Only this machine may publish without a key, and the client is not on this machine."""
    before = len(access_log(server))
    assert statuses(server, line, pipelined=pipelined) == [status] * 3
    eventually(lambda: len(access_log(server)) >= before + 3)
    assert [entry["client"] for entry in access_log(server)[before:]] == [client] * 3
