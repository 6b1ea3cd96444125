"""An exec probe: checks that this pod delivers events.

    python -m health.probe [--url URL] [--max-age SECONDS] [--timeout SECONDS]

It opens ``GET /events/_canary`` as any client would. Without a URL it uses 127.0.0.1, PORT, SCRIPT_NAME and
SSE_URL_PREFIX. It exits with 0 if a heartbeat younger than ``--max-age`` arrives within ``--timeout``, with 1 if none
does, and with 2 for wrong arguments. It prints one line, which ``kubectl describe pod`` shows if the probe fails.

The kubelet starts this process for every probe, so it must start cheaply. It uses only the standard library, and
``_socket`` (the C half of ``socket``), because importing ``socket`` costs more CPU time than everything else here. It
also runs as a file, without site-packages: ``python -I -S health/probe.py``.
"""

from __future__ import annotations

import sys
import time

try:
    import _socket as socket
except ImportError:  # another Python than CPython
    import socket  # type: ignore[no-redef]

USAGE = "usage: headwater probe [--url URL] [--max-age SECONDS] [--timeout SECONDS]"

# Threat: another program answers on the port and never ends a line or its headers.
MAX_HEAD_BYTES = 16384
MAX_LINE_BYTES = 65536


class Failed(Exception):
    """The probe failed; the text is the reason, for the pod's events."""


class Heartbeats:
    """Finds heartbeats in an event stream that arrives in pieces.

    A heartbeat's data is the time when it was made, unix milliseconds. The opening is a heartbeat with a ``retry``. It
    does not count, because it proves nothing about later events. Source: WHATWG HTML §9.2.6.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._forget_block()

    def _forget_block(self) -> None:
        self._event = self._data = b""
        self._opening = False

    def feed(self, piece: bytes) -> list[int]:
        """Return the times (unix ms) of the heartbeats that this piece completes. Raises ValueError for a long line."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        found = []
        for line in lines:
            line = line.rstrip(b"\r")
            if not line:
                if self._event == b"heartbeat" and self._data.isdigit() and not self._opening:
                    found.append(int(self._data))
                self._forget_block()
            elif line.startswith(b"event:"):
                self._event = line[6:].strip(b" ")
            elif line.startswith(b"data:"):
                self._data = line[5:].strip(b" ")
            elif line.startswith(b"retry:"):
                self._opening = True
        return found


class Dechunk:
    """Decodes a chunked body that arrives in pieces (RFC 9112 §7.1).

    It is strict: no browser reads a stream with broken framing, so the probe must fail then.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # bytes of this chunk that have not arrived yet, including its CRLF
        self.ended = False

    def feed(self, piece: bytes) -> bytes:
        """Return the data in this piece. Raises ValueError if it is not chunked coding."""
        self._rest += piece
        data = b""
        while self._rest and not self.ended:
            if self._left > 2:
                taken, self._rest = self._rest[: self._left - 2], self._rest[self._left - 2 :]
                self._left -= len(taken)
                data += taken
            elif self._left:
                if len(self._rest) < 2:
                    break
                if self._rest[:2] != b"\r\n":
                    raise ValueError("broken chunked coding")
                self._rest, self._left = self._rest[2:], 0
            else:
                line, found, rest = self._rest.partition(b"\r\n")
                size = line.split(b";")[0].strip()
                if size.strip(b"0123456789abcdefABCDEF") or len(line) > 256 or (found and not size):
                    raise ValueError("broken chunked coding")
                if not found:
                    break
                self._left = int(size, 16) + 2
                self._rest = rest
                self.ended = self._left == 2
        return data


def split_url(url: str) -> tuple[str, int, str]:
    """Return host, port and request target of an ``http://`` URL. Raises ValueError."""
    scheme, found, rest = url.partition("://")
    if not found or scheme != "http":
        raise ValueError(f"the URL must begin with http://, not {url!r}")
    authority, slash, path = rest.partition("/")
    if authority.startswith("["):  # an IPv6 address, RFC 3986 §3.2.2
        host, _, port = authority[1:].partition("]")
    else:
        host, colon, port = authority.partition(":")
        port = colon + port
    port = port.removeprefix(":") or "80"
    target = slash + path or "/"
    printable = all(" " < letter <= "~" for letter in url)
    if not host or not printable or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"not a URL: {url!r}")
    return host, int(port), target


def probe(url: str, max_age: float, timeout: float) -> str:
    """Wait for a heartbeat and return a line about it.

    max_age: the heartbeat's greatest age, seconds; timeout: seconds in all. Raises Failed with the reason, ValueError
    for an invalid URL.
    """
    host, port, target = split_url(url)
    began = time.monotonic()
    deadline = began + timeout
    stage = f"no connection to {host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.sendall(
                f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n"
                "User-Agent: headwater-probe\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            stage = "connected, but no answer"
            head = b""
            while b"\r\n\r\n" not in head:
                if len(head) > MAX_HEAD_BYTES:
                    raise Failed(f"more than {MAX_HEAD_BYTES} bytes of headers")
                head += _receive(connection, deadline)
            head, _, piece = head.partition(b"\r\n\r\n")
            dechunk = _check_head(head)
            stage = "the stream opened, but no heartbeat"
            heartbeats = Heartbeats()
            while True:
                if piece and dechunk is not None:
                    piece = dechunk.feed(piece)
                for made in heartbeats.feed(piece):
                    age = time.time() - made / 1000
                    if abs(age) <= max_age:
                        return f"a heartbeat {max(age, 0.0):.3f} s old after {time.monotonic() - began:.2f} s"
                    stage = f"the stream is open, but its heartbeat is {age:.1f} s old: no newer one"
                if dechunk is not None and dechunk.ended:
                    raise Failed("the stream ended")
                piece = _receive(connection, deadline)
        finally:
            connection.close()
    except TimeoutError:
        raise Failed(f"{stage} within {timeout:g} s") from None
    except ValueError as error:
        raise Failed(f"not an event stream: {error}") from None
    except OSError as error:
        raise Failed(f"{stage}: {error.strerror or error}") from None


def _receive(connection: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)  # the time left in all, so that a byte a second does not prolong the probe
    piece = connection.recv(65536)
    if not piece:
        raise Failed("the server closed the connection")
    return piece


def _check_head(head: bytes) -> Dechunk | None:
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1.") or lines[0][9:12] != "200":
        raise Failed(f"answered {lines[0][:100]!r}")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip().lower()
    if not headers.get("content-type", "").startswith("text/event-stream"):
        raise Failed(f"answered with content type {headers.get('content-type', '')!r}")
    return Dechunk() if headers.get("transfer-encoding") == "chunked" else None


def _seconds(option: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError(f"{option} takes seconds, above 0 and up to 3600, not {value!r}")
    return seconds


def main(arguments: list[str]) -> int:
    """Run as a command; returns the exit status."""
    url = ""
    seconds = {"--max-age": 5.0, "--timeout": 3.0}
    try:
        rest = list(arguments)
        while rest:
            option, equals, value = rest.pop(0).partition("=")
            if option in ("-h", "--help"):
                print(USAGE)
                return 0
            if not equals:
                value = rest.pop(0) if rest else ""
            if option == "--url":
                split_url(value)
                url = value
            elif option in seconds:
                seconds[option] = _seconds(option, value)
            else:
                raise ValueError(f"unknown option {option!r}")
        if not url:
            from os import environ

            port = environ.get("PORT", "").strip()
            if not port or "://" in port:  # Kubernetes sets it to the address of a Service of that name
                port = "8080"
            prefix = environ.get("SSE_URL_PREFIX", "").strip() or "/events"
            url = f"http://127.0.0.1:{port}{environ.get('SCRIPT_NAME', '').rstrip('/')}{prefix}/_canary"
            split_url(url)
    except ValueError as error:
        print(f"{error}\n{USAGE}", file=sys.stderr)
        return 2
    try:
        print("ok:", probe(url, seconds["--max-age"], seconds["--timeout"]))
    except Failed as reason:
        print("failed:", reason)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
