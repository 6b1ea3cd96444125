"""A client that sees the wire: when each piece came, how the answer's end was told, and what was left over.

The standard library's client hides all three. It speaks HTTP/1.1 and TLS, follows nothing, and sends one request a
connection, as a probe or an EventSource does.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import CannotRun

#: Seconds for a connection, TLS included. A pod answers in milliseconds, another continent in half a second.
CONNECT_TIMEOUT = 5.0

#: Seconds for an answer's head. A stream that says nothing for that long is no use to anybody.
HEAD_TIMEOUT = 10.0

#: Bytes of a head. Servers and proxies have limits of 8 to 64 KB.
_MAX_HEAD = 65536


class NoAnswer(CannotRun):
    """A connection was made, and no head came in time."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart."""

    url: str
    host: str
    port: int
    path: str
    secure: bool

    @property
    def authority(self) -> str:
        default = 443 if self.secure else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"


def target(url: str) -> Target:
    """Raises CannotRun if it is no URL of HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CannotRun(f"{url}: not a URL that begins with http:// or https://")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(url, parts.hostname, port or (443 if secure else 80), path, secure)


@dataclass
class Answer:
    """An answer's head, and its connection."""

    connection: socket.socket
    version: str  # "HTTP/1.1"
    status: int
    headers: dict[str, str]  # lower-case names; the last of several
    asked: float  # monotonic: when the request was sent
    head_seconds: float
    rest: bytes = b""
    ended: str = ""  # how it ended: "last chunk", "length", "closed", "torn" or "" while it goes on
    surplus: bytes = field(default=b"", repr=False)  # what came behind its end

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None

    def close(self) -> None:
        self.connection.close()

    def pieces(self, until: float) -> Iterator[tuple[float, bytes]]:
        """Pieces of the body as they come, with the time of each, until it ends or ``until`` (monotonic) has come."""
        if self.status in (204, 304):  # these have no body, whatever their headers say (RFC 9112, 6.3)
            self.ended, self.surplus = "length", self.rest
            return
        decoder = _Chunks() if self.chunked else _Plain(self.length)
        data, self.rest = self.rest, b""
        while True:
            if data:
                piece = decoder.feed(data)
                if piece:
                    yield time.monotonic(), piece
            if decoder.done:
                self.ended = "last chunk" if self.chunked else "length"
                self.surplus = decoder.surplus
                return
            left = until - time.monotonic()
            if left <= 0:
                return
            self.connection.settimeout(left)
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                return
            except OSError:
                self.ended = "torn"
                return
            if not data:
                self.ended = "torn" if self.chunked or self.length is not None else "closed"
                return


class _Plain:
    """A body with a length, or up to the connection's end."""

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.surplus = b""

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        piece, self.surplus = data[: self._left], data[self._left :]
        self._left -= len(piece)
        return piece


class _Chunks:
    """RFC 9112, 7.1; trailers are passed over."""

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of the chunk, with its CR LF
        self.done = False
        self.surplus = b""

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        found = []
        while not self.done:
            if self._left:
                take = self._buffer[: self._left]
                found.append(take[: max(0, self._left - 2)] if len(take) > self._left - 2 else take)
                self._left -= len(take)
                self._buffer = self._buffer[len(take) :]
                if self._left:
                    break
            line, newline, rest = self._buffer.partition(b"\r\n")
            if not newline:
                break
            try:
                size = int(line.partition(b";")[0] or b"0", 16)
            except ValueError:
                self.done = True
                break
            self._buffer = rest
            if size:
                self._left = size + 2
                continue
            _, newline, self.surplus = (b"\r\n" + rest).partition(b"\r\n\r\n")
            if newline:
                self.done = True
            else:
                self._buffer = line + b"\r\n" + rest
                break
        return b"".join(found)


def connect(where: Target) -> socket.socket:
    """A connection; raises CannotRun with one clear line."""
    try:
        plain = socket.create_connection((where.host, where.port), CONNECT_TIMEOUT)
    except TimeoutError:
        raise CannotRun(f"{where.url}: no connection within {CONNECT_TIMEOUT:g} s") from None
    except OSError as error:
        raise CannotRun(f"{where.url}: {error.strerror or error}") from None
    if not where.secure:
        return plain
    try:
        plain.settimeout(CONNECT_TIMEOUT)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=where.host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise CannotRun(f"{where.url}: the certificate cannot be verified: {error.verify_message}") from None
    except (OSError, ValueError) as error:
        plain.close()
        raise CannotRun(f"{where.url}: no TLS: {getattr(error, 'reason', None) or error}") from None


def request(where: Target, headers: dict[str, str]) -> bytes:
    lines = [f"GET {where.path} HTTP/1.1", f"Host: {where.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def ask(where: Target, headers: dict[str, str], timeout: float | None = None) -> Answer:
    """Send a GET and read the answer's head; raises CannotRun."""
    connection = connect(where)
    try:
        asked = time.monotonic()
        connection.sendall(request(where, headers))
        return read_head(connection, where, asked, HEAD_TIMEOUT if timeout is None else timeout)
    except CannotRun:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise CannotRun(f"{where.url}: {error.strerror or error}") from None


def read_head(connection: socket.socket, where: Target, asked: float, timeout: float) -> Answer:
    data = b""
    hint = " (it is stuck or full, or a proxy holds the head back: --direct and --through compare)"
    while b"\r\n\r\n" not in data:
        left = asked + timeout - time.monotonic()
        if left <= 0 or len(data) > _MAX_HEAD:
            raise NoAnswer(f"{where.url}: no answer within {timeout:g} s{hint}")
        connection.settimeout(left)
        try:
            more = connection.recv(4096)
        except TimeoutError:
            raise NoAnswer(f"{where.url}: no answer within {timeout:g} s{hint}") from None
        if not more:
            raise CannotRun(f"{where.url}: the connection was closed without an answer")
        data += more
    took = time.monotonic() - asked
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/") or not status[:3].isdigit():
        raise CannotRun(f"{where.url}: this is not HTTP: {first[:60]!r}")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Answer(connection, version, int(status[:3]), headers, asked, took, rest)
