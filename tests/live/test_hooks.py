"""An app's hooks that change, replace or lose a stream's response: the body fits the head, and no stream's place
leaks."""

from __future__ import annotations

import contextlib
import http.client
import sys
import zlib
from collections.abc import Callable, Iterator

import pytest

from tests.live.observe import samples, streams
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.live.hooked_app:app")
MAX_STREAMS = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # A hook that reads a stream as a whole waits for its end.
    with Server(command=COMMAND, SSE_MAX_STREAMS=MAX_STREAMS, SSE_MAX_STREAM_AGE=2, SSE_HEARTBEAT=0.2) as server:
        yield server


@pytest.mark.parametrize("target", ["/events/slots", "/events?channel=slots&channel=b", "/own"])
@pytest.mark.parametrize("doing", ["replace", "fail"])
def test_a_stream_whose_response_is_lost_takes_no_slot(
    server: Server, open_stream: OpenStream, doing: str, target: str
) -> None:
    for _ in range(2 * MAX_STREAMS):
        answer = server.request("GET", target, headers={"X-Do": doing})
        assert answer.status == (200 if doing == "replace" else 500)
    clients = [open_stream(server, "/events/slots") for _ in range(MAX_STREAMS)]
    # One that is sent away has an opening, too, and ends.
    assert all(client.next_event(2).id for client in clients)
    assert streams(server) == MAX_STREAMS
    for client in clients:
        client.close()
    eventually(lambda: streams(server) == 0, 3, "the streams are still counted")


def test_a_compressed_stream_is_compressed_to_its_end(server: Server) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=8)) as client:
        client.request("GET", "/events/zip?since=earliest", headers={"X-Do": "compress"})
        answer = client.getresponse()
        assert answer.headers["Content-Encoding"] == "deflate"
        assert server.request("POST", "/events/zip", body=b"squeezed").status == 201
        plain = zlib.decompressobj().decompress(answer.read())  # until its lease ends
    assert b"data: squeezed\n" in plain


def test_a_wrapper_of_the_body_sees_every_byte(server: Server) -> None:
    with SSEClient(server.port, "/events/loud", headers={"X-Do": "shout"}) as client:
        client.next_event(3)
        assert server.request("POST", "/events/loud", body=b"event").status == 201
        assert client.next_message(3).data == "Event"


def test_a_stream_that_a_hook_reads_whole_has_the_right_content_length(server: Server) -> None:
    with SSEClient(server.port, "/events/whole", headers={"X-Do": "measure"}, timeout=8) as client:
        length = int(client.headers["content-length"])
        blocks = client.read_to_end(3)
        assert client.ending is Ending.COMPLETE and len(client.body) == length
        assert blocks[0].id and blocks[-1].retry is not None and len(blocks) > 3, "all of it, with its heartbeats"


@pytest.mark.parametrize(("doing", "taken_over"), [("add", True), ("announce", False), ("begin", False), ("", True)])
def test_only_an_untouched_stream_is_taken_over(
    server: Server, open_stream: OpenStream, doing: str, taken_over: bool
) -> None:
    client = open_stream(server, "/events/taken", headers={"X-Do": doing} if doing else {})
    client.next_event(3)
    count = 'sse_connections{state="stream"}'

    eventually(lambda: streams(server) == 1, 2)
    assert bool(samples(server).get(count)) is taken_over
    client.close()
    eventually(lambda: streams(server) == 0, 3)
