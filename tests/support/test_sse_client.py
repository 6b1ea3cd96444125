"""Tests the live tests' clients against a scripted server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.resuming_client import ResumingClient
from tests.support.sse_client import Ending, SSEClient
from tests.support.sse_parser import BrokenFraming, ChunkedDecoder, EventParser, StreamEvent

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DELIMITED = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b"id: 1-0\ndata: x\n\n"


def chunk(octets: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(octets), octets)


class Scripted:
    """Answers one connection after the other with given bytes; ``reset`` ends with RST. Keeps the requests."""

    def __init__(self, *answers: bytes, reset: bool = False) -> None:
        self.requests: list[str] = []
        self._answers = answers
        self._reset = reset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            for answer in self._answers:
                connection, _ = self._listener.accept()
                with connection:
                    self.requests.append(connection.recv(65536).decode())
                    connection.sendall(answer)
                    if self._reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    with contextlib.ExitStack() as stack:

        def start(*answers: bytes, reset: bool = False) -> Scripted:
            return stack.enter_context(contextlib.closing(Scripted(*answers, reset=reset)))

        yield start


@pytest.mark.parametrize(
    ("octets", "ending"),
    [
        pytest.param(CHUNKED + chunk(EVENT) + b"0\r\n\r\n", Ending.TERMINATED, id="terminated"),
        pytest.param(CHUNKED + chunk(EVENT), Ending.CUT, id="cut between two chunks"),
        pytest.param(CHUNKED + chunk(EVENT) + b"5\r\nid", Ending.CUT, id="cut in a chunk"),
        pytest.param(CHUNKED + chunk(EVENT) + b"0\r\n", Ending.CUT, id="cut in the terminating chunk"),
        pytest.param(DELIMITED + EVENT, Ending.CLOSED, id="close-delimited"),
    ],
)
def test_a_cut_stream_is_told_from_one_that_ended(
    scripted: Callable[..., Scripted], octets: bytes, ending: Ending
) -> None:
    with SSEClient(scripted(octets).port, "/") as client:
        assert client.next_event() == StreamEvent("1-0", None, "x", None)
        assert client.read_to_end() == []
        assert client.wait_closed() is ending
        assert client.terminated is (ending is Ending.TERMINATED)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"g\r\n", id="a size that is no number"),
        pytest.param(b" 1\r\nx\r\n", id="a space before the size"),
        pytest.param(b"1;x=y\r\nx\r\n", id="an extension"),
        pytest.param(b"1\r\nxy\r\n", id="a chunk longer than its size"),
        pytest.param(b"1\nx\n", id="bare LF"),
        pytest.param(b"0\r\nX: y\r\n\r\n", id="a trailer"),
        pytest.param(b"0\r\n\r\nHTTP/1.1 200 OK", id="bytes after the end"),
    ],
)
@pytest.mark.parametrize("size", [pytest.param(1, id="byte by byte"), pytest.param(99, id="at once")])
def test_broken_chunks_are_refused_however_they_arrive(octets: bytes, size: int) -> None:
    decoder = ChunkedDecoder()
    with pytest.raises(BrokenFraming):
        for start in range(0, len(octets), size):
            decoder.feed(octets[start : start + size])
        decoder.feed(b"!" * 64)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_and_blocks_are_parsed_from_any_pieces(size: int) -> None:
    text = "\ufeff: hello\n\nid: 1-0\nretry: 20\n\r\nevent: a\rdata:  ä\r\ndata\n\nretry: 2x\nid: \0\ndata:b:c\n\nid\n"
    wire = b"".join(chunk(text.encode()[at : at + 5]) for at in range(0, len(text.encode()), 5)) + b"0\r\n\r\n"
    decoder, parser, blocks = ChunkedDecoder(), EventParser(), []
    for at in range(0, len(wire), size):
        blocks += parser.feed(decoder.feed(wire[at : at + size]))
    assert blocks == [
        StreamEvent("1-0", None, None, 20),
        StreamEvent(None, "a", " ä\n", None),
        StreamEvent(None, None, "b:c", None),
    ]
    assert (decoder.terminated, parser.partial, parser.last_event_id, parser.comments) == (True, True, "1-0", 1)


def test_the_resuming_client_reconnects_with_its_cursor_after_the_retry(
    scripted: Callable[..., Scripted],
) -> None:
    first = CHUNKED + chunk(b"retry: 30\n\n" + EVENT) + b"0\r\n\r\n"
    again = CHUNKED + chunk(EVENT + b"id: 2-0\nevent: heartbeat\ndata: 1\n\n")
    server = scripted(first, again, b"HTTP/1.1 204 No Content\r\n\r\n")
    with ResumingClient(server.port, "/") as client:
        client.wait_for(lambda it: it.is_over)
    assert [("Last-Event-ID" in text) for text in server.requests] == [False, True, True]
    assert ["1-0" in server.requests[1], "2-0" in server.requests[2]] == [True, True]
    assert (client.ids, client.duplicates(), client.reconnects) == (["1-0", "1-0"], ["1-0"], 1)
    assert client.endings[:2] == [Ending.TERMINATED, Ending.CUT]
    assert client.attempts[1] - client.attempts[0] >= 0.03


def test_a_reset_is_told_from_an_end(scripted: Callable[..., Scripted]) -> None:
    with SSEClient(scripted(CHUNKED, reset=True).port, "/") as client:
        assert client.wait_closed() is Ending.RESET
