"""Bytes on a connection, read as by our worker: gunicorn's parser, our reader, our rules.

h11, which shares no code with gunicorn, must read the same requests in the same bytes: if a proxy in front reads other
ones, requests can be smuggled. The same bytes again must give the same requests, although remembered heads are not parsed.
"""

from __future__ import annotations

from typing import Any

import h11
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException

from sse.settings import Settings
from sse.worker.connection import Connection
from sse.worker.head_memory import HeadMemory

SETTINGS = Settings.from_mapping({"SSE_LOG": "memory:"})

CFG = Config()
# As in gunicorn.conf.py.
CFG.set("limit_request_line", 8190)
CFG.set("limit_request_fields", 100)
CFG.set("limit_request_field_size", SETTINGS.sse_max_header_bytes)

#: A worker's, never emptied: each input may meet what earlier inputs left.
HEADS = HeadMemory(CFG)

#: The most that is read of a body, in bytes.
BODY_MOST = 4096

TOKEN = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Wire:
    """A socket with these bytes, and then the peer's end."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step
        self.sent = b""

    def recv(self, size: int) -> bytes:
        size = min(size, self._step)
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, seconds: float | None) -> None:
        assert seconds is None or seconds > 0

    def getpeername(self) -> Any:
        return ("127.0.0.1", 5)


class Taken:
    """An accepted request, and what was read of its body; ``complete``: to its end."""

    def __init__(self, request: Any) -> None:
        self.method, self.target, self.version = request.method, request.uri, request.version
        self.headers = list(request.headers)
        self.body = b""
        self.complete = False


def read(data: bytes, step: int, heads: HeadMemory | None = None) -> list[Taken]:
    """Return the requests that our connection reads from these bytes, in pieces of at most ``step``, with remembered
    heads."""
    wire = Wire(data, step)
    connection = Connection(wire, ("127.0.0.1", 5), SETTINGS, lambda: False, listener=("127.0.0.1", 8080))
    taken: list[Taken] = []

    def answer(request: Any) -> bool:
        found = Taken(request)
        taken.append(found)
        found.body = request.body.read(BODY_MOST)
        found.complete = len(found.body) < BODY_MOST
        return not request.should_close()

    try:
        connection.requests(CFG, answer, lambda reason: None, heads)
    except (ParseException, HTTPException, StopIteration):
        pass  # 400, 408, 413, 431, 501: the worker answers, and ends the connection
    except OSError as error:
        raise AssertionError("the wire does not fail") from error
    assert wire.sent in (b"", *(b"HTTP/1.1 100 Continue\r\n\r\n" * n for n in range(1, len(taken) + 1)))
    return taken


def others(data: bytes) -> list[tuple[bytes, bytes, bytes, bool]]:
    """Return the same by h11, until it refuses: method, target, body, whether it was complete."""
    found: list[tuple[bytes, bytes, bytes, bool]] = []
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    peer.receive_data(data)
    peer.receive_data(b"")
    try:
        while True:
            event = peer.next_event()
            if isinstance(event, h11.Request):
                found.append((event.method, event.target, b"", False))
            elif isinstance(event, h11.Data):
                method, target, body, _ = found[-1]
                found[-1] = (method, target, body + bytes(event.data), False)
            elif isinstance(event, h11.EndOfMessage):
                found[-1] = (*found[-1][:3], True)
                peer.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                    return found
                peer.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


def run(data: bytes) -> None:
    """Run the target (see the module). The first byte says in what pieces the others arrive."""
    if not data:
        return
    data, step = data[1:], (1, 7, 100, 65536)[data[0] % 4]
    taken = read(data, step)
    for _ in range(3):  # seen, learnt, remembered; what other inputs left must not matter
        assert [vars(request) for request in read(data, step, HEADS)] == [vars(request) for request in taken]
    for request in taken:
        assert set(request.method) <= TOKEN, request.method
        assert request.target.isprintable() and " " not in request.target, request.target
        for name, value in request.headers:
            assert set(name) <= TOKEN, name
            assert not set(value) & set("\r\n\0"), value
        names = [name for name, _ in request.headers]
        assert names.count("CONTENT-LENGTH") <= 1 and names.count("TRANSFER-ENCODING") <= 1
        assert not ("CONTENT-LENGTH" in names and "TRANSFER-ENCODING" in names)
        assert "HOST" in names or request.version < (1, 1)
    for ours, theirs in zip(taken, others(data), strict=False):
        assert (ours.method.encode(), ours.target.encode("latin-1")) == theirs[:2], (ours.target, theirs)
        if ours.complete and theirs[3]:
            assert ours.body == theirs[2], (ours.body, theirs)


SEEDS = [
    b"\x03POST /events/a?event=x HTTP/1.1\r\nHost: a\r\nTraceparent: 00-1\r\nContent-Length: 3\r\nIdempotency-Key: k\r\n\r\nabc"
    b"POST /events/a?event=x HTTP/1.1\r\nHost: a\r\nTraceparent: 11-0\r\nContent-Length: 4\r\nIdempotency-Key: l\r\n\r\nabcd",
    b"\x03GET /events/a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x01POST /events/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x03POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
    b"\x02GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x03POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: x, close\r\n\r\nabc",
    b"\x03POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\x00OPTIONS * HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nLast-Event-ID: 1-1\r\n\r\n",
]
