"""The access log has one line for each stream, at its end, and for each ordinary request. No line can be forged."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import StartServer
from tests.live.observe import access_fields, access_log, closed, fields, json_lines, samples, stream_lines
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that sends no heartbeats during a test, so that bytes can be counted."""
    with Server(SSE_HEARTBEAT=600, LOG_FORMAT="json") as running:
        yield running


def new_lines(server: Server, before: int, count: int) -> list[dict[str, str]]:
    """Wait for exactly ``count`` lines after the first ``before``; return them."""
    eventually(lambda: len(access_log(server)) >= before + count, 3, lambda: f"{access_log(server)[before:]}")
    server.request("GET", "/healthz", port=server.health_port)  # whatever was to be logged has been
    lines = access_log(server)[before:]
    assert len(lines) == count, lines
    return lines


REQUESTS = [
    pytest.param("GET", "/openapi.json", 200, id="a page"),
    pytest.param("HEAD", "/openapi.json", 200, id="its HEAD"),
    pytest.param("GET", "/nowhere?x=1", 404, id="not found"),
    pytest.param("POST", "/events/log", 201, id="a publish"),
    pytest.param("PUT", "/events/log", 405, id="a method that is not there"),
    pytest.param("HEAD", "/events/log", 200, id="HEAD of a stream"),
    pytest.param("GET", "/healthz", 200, id="a probe on the main port"),
]


@pytest.mark.parametrize(("method", "target", "status"), REQUESTS)
def test_an_ordinary_request_has_one_line(server: Server, method: str, target: str, status: int) -> None:
    before = len(access_log(server))
    answer = server.request(method, target, b"x" if method == "POST" else None)
    (line,) = new_lines(server, before, 1)
    assert line["kind"] == "request"
    assert (line["client"], line["method"], line["target"]) == ("127.0.0.1", method, target)
    assert (int(line["status"]), answer.status) == (status, status)
    assert int(line["bytes"]) == len(answer.body)
    assert 0 <= float(line["duration"]) < 5


def test_every_request_on_a_kept_alive_connection_has_a_line(server: Server) -> None:
    before = len(access_log(server))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 7)
        new_lines(server, before, 7)


def test_probes_on_the_health_port_have_no_line(server: Server) -> None:
    before = len(access_log(server))
    for _ in range(5):
        server.request("GET", "/readyz", port=server.health_port)
    new_lines(server, before, 0)


def test_a_stream_has_one_line_at_its_end_with_exact_counts(server: Server, open_stream: OpenStream) -> None:
    before = len(access_log(server))
    kept = open_stream(server, "/events?channel=b&channel=a&event=x")
    kept.next_event()
    left_out = open_stream(server, "/events/a?event=other")
    late = None
    for number in range(30):
        server.publish("a" if number % 2 else "b", f"{number}\n" * 3, "?event=x")
        if number == 9:
            late = open_stream(server, "/events/b?since=earliest")
    assert late is not None
    size = 0
    for _ in range(30):
        block = kept.next_message()
        data = "".join(f"data: {part}\n" for part in (block.data or "").split("\n"))
        size += len(f"id: {block.id}\nevent: x\n{data}\n")
    for _ in range(15):
        late.next_message()
    new_lines(server, before, 30)  # the publisher's: streams have none while they are open
    for client in (kept, left_out, late):
        client.close()
    lines = {line["channels"]: line for line in new_lines(server, before, 33) if line["kind"] == "stream"}
    assert set(lines) == {"a,b?event=x", "a?event=other", "b"}
    mine = lines["a,b?event=x"]
    assert (mine["client"], mine["reason"]) == ("127.0.0.1", "client")
    assert (int(mine["events"]), int(mine["bytes"])) == (30, size)
    assert lines["a?event=other"]["events"] == "0"
    assert lines["b"]["events"] == "15"


def test_the_metrics_agree_with_the_lines(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.5, SSE_MAX_STREAM_AGE=2, WEB_CONCURRENCY=2)
    for number in range(12):
        client = open_stream(server, "/events/a")
        client.next_event()
        if number % 3 == 0:
            client.close()
        elif number % 3 == 1:
            client.abort()
    sent = [server.publish("a", "x") for _ in range(4)]
    eventually(lambda: len(stream_lines(server)) == 12, 5)
    reasons = Counter(line["reason"] for line in stream_lines(server))
    assert reasons == {"client": 4, "reset": 4, "lease": 4}
    eventually(lambda: closed(server) == dict(reasons), 2, lambda: f"{closed(server)}")
    found = samples(server)
    assert found["sse_streams_opened_total"] == 12
    assert found["sse_events_published_total"] == len(sent)
    delivered = sum(int(line["events"]) for line in stream_lines(server))
    assert found["sse_events_delivered_total"] == delivered == 4 * len(sent)


def test_json_lines_have_fields_as_values(server: Server, open_stream: OpenStream) -> None:
    before = len(access_log(server))
    client = open_stream(server, "/events/typed")
    client.next_event()
    server.publish("typed", "x")
    client.next_message()
    client.close()
    new_lines(server, before, 2)
    published, stream = json_lines(server, "headwater.access")[before:]
    assert published["message"] == "request" and stream["message"] == "stream"
    assert published.items() >= {"level": "info", "method": "POST", "target": "/events/typed", "status": 201}.items()
    assert stream.items() >= {"client": "127.0.0.1", "channels": "typed", "events": 1, "reason": "client"}.items()
    assert {type(stream["bytes"]), type(published["bytes"])} == {int}
    assert {type(stream["duration"]), type(published["duration"])} == {float}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stream["time"])


GIVEN = [
    pytest.param("f3a1c2d4-0d1e-4f5a-8b6c-7d8e9f0a1b2c", True, id="a UUID"),
    pytest.param("Root=1-67891233-abcdef012345678912345678", True, id="a load balancer's"),
    pytest.param("a" * 64, True, id="the longest"),
    pytest.param("a" * 65, False, id="a longer one"),
    pytest.param("a b", False, id="a blank"),
    pytest.param('a"b', False, id="a quotation mark"),
    pytest.param("a\tb", False, id="a tab"),
    pytest.param("gr\xfc\xdfe", False, id="beyond ASCII"),
    pytest.param("", False, id="an empty one"),
    pytest.param("-a", False, id="an option's beginning"),
    pytest.param("{{7*7}}", False, id="braces"),
]


@pytest.mark.parametrize(("given", "taken"), GIVEN)
def test_a_harmless_request_id_is_kept_in_the_answer_and_in_the_log(
    server: Server, given: str, taken: bool
) -> None:
    before = len(access_log(server))
    answer = server.request("GET", "/openapi.json", headers={"X-Request-ID": given})
    (line,) = new_lines(server, before, 1)
    assert answer.headers.get_all("X-Request-ID") == [line["request_id"]]
    assert (line["request_id"] == given) is taken
    assert taken or re.fullmatch("[0-9a-f]{16}", line["request_id"])


@pytest.mark.parametrize(("method", "target", "status"), REQUESTS)
def test_every_kind_of_answer_has_its_own_request_id(server: Server, method: str, target: str, status: int) -> None:
    before = len(access_log(server))
    ids = [server.request(method, target, b"x" if method == "POST" else None).headers["X-Request-ID"] for _ in range(3)]
    assert [line["request_id"] for line in new_lines(server, before, 3)] == ids
    assert len(set(ids)) == 3


def test_two_request_ids_in_one_request_are_ignored(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(b"GET /openapi.json HTTP/1.0\r\nX-Request-ID: one\r\nX-Request-ID: two\r\n\r\n")
        head = sock.makefile("rb").read().partition(b"\r\n\r\n")[0]
    assert re.search(rb"X-Request-ID: [0-9a-f]{16}(\r|$)", head), head


def test_a_stream_has_its_request_id_in_its_head_and_in_the_log(server: Server) -> None:
    before = len(access_log(server))
    with SSEClient(server.port, "/events/named", headers={"X-Request-ID": "tour/7"}) as client:
        client.next_event()
        assert client.headers["x-request-id"] == "tour/7"
    with SSEClient(server.port, "/events/named") as client:
        made = client.headers["x-request-id"]
    lines = new_lines(server, before, 2)
    assert [(line["kind"], line["request_id"]) for line in lines] == [("stream", "tour/7"), ("stream", made)]


def test_workers_make_different_request_ids(start_server: StartServer) -> None:
    """Workers are forked from one process, so generators seeded before the fork would make the same ids."""
    server = start_server(WEB_CONCURRENCY=2)
    for _ in range(40):
        server.request("GET", "/openapi.json")

    def ids() -> list[str]:
        return [line["request_id"] for line in json_lines(server, "headwater.access")]

    eventually(lambda: len(ids()) >= 40, 5, lambda: f"{len(ids())} lines")
    assert len(set(ids())) == len(ids())


def test_probes_on_the_health_port_have_no_request_id(server: Server) -> None:
    assert server.request("GET", "/readyz", port=server.health_port).headers["X-Request-ID"] is None


SECRETS = [
    pytest.param("/events/s?access_token=SECRET123", {}, id="in the query"),
    pytest.param("/events/s?x=1&access_token=SECRET123&y=2", {}, id="among others"),
    pytest.param("/openapi.json?access%5Ftoken=SECRET123", {}, id="with an escaped name"),
    pytest.param("/events/s?ACCESS_TOKEN=SECRET123", {}, id="in capitals"),
    pytest.param("http://user:SECRET123@localhost/openapi.json", {}, id="in an absolute target"),
    pytest.param("/nowhere?access_token=SECRET123", {}, id="of what is not there"),
    pytest.param("/openapi.json", {"Authorization": "Bearer SECRET123"}, id="in a header"),
    pytest.param("/openapi.json", {"Cookie": "sse_token=SECRET123"}, id="in a cookie"),
    pytest.param("/openapi.json", {"Referer": "http://x/?access_token=SECRET123"}, id="in the referrer"),
    pytest.param("/openapi.json", {"Bad Header": "SECRET123"}, id="in a request that is refused"),
]


@pytest.mark.parametrize(("target", "headers"), SECRETS)
def test_secrets_do_not_reach_the_log(server: Server, target: str, headers: dict[str, str]) -> None:
    before = len(server.log_text())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    eventually(lambda: len(server.log_text()) > before, 2)
    assert "SECRET123" not in server.log_text()


@pytest.fixture(scope="module", params=["text", "json"])
def form(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(LOG_FORMAT=request.param) as running:
        yield running


# What would end a line, or start a field, if it were written as it came. Raw bytes of a request.
FORGERIES = [
    pytest.param(b"GET /x%0a%0dforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="an escaped line end in the path"),
    pytest.param(b"GET /x?a=%0Aforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="one in the query"),
    pytest.param(b"GET /x\rforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a bare CR in the target"),
    pytest.param(b"GET /x\nforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a bare LF in the target"),
    pytest.param(b"GET /x\x1b[2Kforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a terminal's escape sequence"),
    pytest.param(b"GET /x\xc2\x85forged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a line end of Unicode's"),
    pytest.param(b"GET /x HTTP/1.1\r\nHost: localhost\r\nX\x0bforged: 1\r\n\r\n", id="a header's name"),
    pytest.param(b"GET /x HTTP/1.1\r\nHost: a\rforged\r\n\r\n", id="a header's value"),
    pytest.param(b"FOO\x1bforged /x HTTP/1.1\r\nHost: localhost\r\n\r\n", id="the method"),
    pytest.param(b"GET /x forged\x85\x1b HTTP/9.9\r\nHost: localhost\r\n\r\n", id="the version"),
    pytest.param(b'GET /x"_status=200_forged HTTP/1.1\r\nHost: localhost\r\n\r\n', id="a quotation mark"),
    pytest.param(b"GET /events/a?event=%0aforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a stream's event type"),
    pytest.param(b"POST /events/a?event=%0aforged HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a published type"),
    pytest.param(
        b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.2.3.4\x0bforged\r\n\r\n", id="a forwarded address"
    ),
    pytest.param(
        b'GET /x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 1" status=200 forged="\r\n\r\n', id="a request id"
    ),
    pytest.param(b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: 1\xc2\x85forged\r\n\r\n", id="a request id's end"),
]


@pytest.mark.parametrize("octets", FORGERIES)
def test_no_request_can_forge_a_line(form: Server, octets: bytes) -> None:
    before = form.log_path.stat().st_size
    with socket.create_connection(("127.0.0.1", form.port), timeout=5) as sock:
        sock.sendall(octets)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    form.request("GET", "/openapi.json")  # comes after whatever that one left behind
    eventually(lambda: b"/openapi.json" in form.log_path.read_bytes()[before:], 2)
    written = form.log_path.read_bytes()[before:]
    assert all(octet >= 0x20 or octet == 0x0A for octet in written), written
    for line in written.decode().split("\n"):
        # str.splitlines knows more line ends than "\n", and so do some log viewers.
        assert len(line.splitlines()) <= 1, line
        assert not line.startswith("forged"), line
    requests = [line for line in written.decode().split("\n") if "headwater.access" in line and "openapi" not in line]
    for text in requests:
        if text.startswith("{"):
            parsed = access_fields(json.loads(text))
        else:
            parsed = fields(text[max(text.find("request client="), text.find("stream client=")) :])
        assert parsed["kind"] == "stream" or parsed["status"] != "200"
