"""Requests and answers as bytes, because an HTTP library would tidy them up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def connection(port: int, timeout: float = 5.0) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        yield sock


def get(path: str, *headers: str) -> bytes:
    """Return a GET request of HTTP/1.1."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", "")).encode()


def read_until_quiet(sock: socket.socket, quiet: float = 0.5, timeout: float = 5.0) -> tuple[bytes, bool]:
    """Read until nothing arrives for ``quiet`` s; return the bytes, and whether the server has closed."""
    octets = b""
    end = time.monotonic() + timeout
    sock.settimeout(timeout)
    while time.monotonic() < end:
        try:
            piece = sock.recv(65536)
        except TimeoutError:
            return octets, False
        except ConnectionResetError:
            return octets, True
        if not piece:
            return octets, True
        octets += piece
        sock.settimeout(quiet)
    return octets, False


def head_of(octets: bytes) -> dict[str, str]:
    """Return the headers of the first answer, names in lower case."""
    lines = octets.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
