"""Streams with gzip on raw sockets: who gets it, and that each event can be read at once whatever a stream goes through."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from tests.conftest import StartServer
from tests.live.observe import samples, streams
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]

GZIP = {"Accept-Encoding": "gzip"}
SECRET = "a secret that has more than 32 bytes"


def text(number: int) -> str:
    """Return an event of 150 bytes."""
    order = {
        "order": 1_000_000 + number * 7,
        "status": "paid",
        "total": number * 137 % 50_000 / 100,
        "at": 1_700_000_000_000 + number * 731,
    }
    return json.dumps(order, separators=(",", ":")).ljust(149, " ") + "."


def is_gzip(client: SSEClient) -> bool:
    coded = client.headers.get("content-encoding") == "gzip"
    assert coded == (("vary", "Accept-Encoding") in client.raw_headers)
    return coded


@pytest.fixture(scope="module")
def quiet() -> Iterator[Server]:
    """A server whose streams last."""
    with Server(SSE_HEARTBEAT=600, SSE_WRITE_TIMEOUT=0) as server:
        yield server


# ── who gets it ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("deflate, gzip;q=0.5, br", True),
        ("*", True),
        ("*;q=0.1", True),
        ("gzip;q=0.001", True),
        ("gzip;q=1, identity;q=1", True),
        ("", False),
        ("identity", False),
        ("deflate, br, zstd", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0, *", False),
        ("gzip, gzip;q=0", False),
        ("*;q=0", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=0.5, *;q=1", False),
        ("gzip;q=abc", False),
        ("gzip;q=-1", False),
        ("gzipped", False),
    ],
)
def test_accept_encoding_decides(quiet: Server, open_stream: OpenStream, accepted: str, expected: bool) -> None:
    by_fast_path = open_stream(quiet, "/events/who", headers={"Accept-Encoding": accepted})
    by_flask = open_stream(quiet, "/events?channel=who", headers={"Accept-Encoding": accepted})
    assert is_gzip(by_fast_path) == is_gzip(by_flask) == expected
    quiet.publish("who", "x")
    assert by_fast_path.next_message().data == by_flask.next_message().data == "x"


def test_a_header_that_is_repeated_is_one_list(quiet: Server, open_stream: OpenStream) -> None:
    assert is_gzip(open_stream(quiet, "/events/who", headers={"Accept-Encoding": "br\r\nAccept-Encoding: gzip"}))
    assert not is_gzip(
        open_stream(quiet, "/events/who", headers={"Accept-Encoding": "gzip\r\nAccept-Encoding: gzip;q=0"})
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"version": "1.0"}, id="HTTP/1.0"),
        pytest.param({"method": "HEAD"}, id="HEAD"),
        pytest.param({"headers": {**GZIP, "Accept": "application/json"}}, id="history"),
        pytest.param({"headers": {**GZIP, "Cookie": "session=x"}}, id="a cookie"),
        pytest.param({"headers": {**GZIP, "Authorization": "Basic eDp5"}}, id="Authorization"),
        pytest.param({"query": "?access%5Ftoken=x"}, id="access_token"),
    ],
)
def test_others_are_served_as_ever(quiet: Server, open_stream: OpenStream, options: dict[str, object]) -> None:
    target = "/events/who" + str(options.pop("query", ""))
    assert not is_gzip(open_stream(quiet, target, **{"headers": GZIP, **options}))


@pytest.mark.parametrize(("mode", "expected"), [("auto", "public"), ("on", "both"), ("off", "none")])
def test_auto_leaves_out_what_needs_a_token(
    start_server: StartServer, open_stream: OpenStream, mode: str, expected: str
) -> None:
    server = start_server(SSE_COMPRESS=mode, SSE_JWT_KEY=SECRET, SSE_PUBLIC_CHANNELS="news")
    token = jwt.encode({"exp": time.time() + 600, "sse": {"subscribe": ["*"]}}, SECRET)
    private = open_stream(server, "/events/private", headers={**GZIP, "Authorization": f"Bearer {token}"})
    assert is_gzip(private) == (expected == "both")
    assert is_gzip(open_stream(server, "/events/news", headers=GZIP)) == (expected in ("both", "public"))


def test_the_setting_is_live_and_open_streams_stay_as_they_are(
    start_server: StartServer, open_stream: OpenStream, tmp_path: Path
) -> None:
    settings = tmp_path / "settings"
    settings.write_text("SSE_COMPRESS=auto\n")
    server = start_server(SSE_CONFIG_FILE=str(settings))
    first = open_stream(server, "/events/a", headers=GZIP)
    settings.write_text("SSE_COMPRESS=off\n")
    eventually(lambda: not is_gzip(open_stream(server, "/events/a", headers=GZIP)), 10, interval=0.1)
    settings.write_text("SSE_COMPRESS=on\n")
    cookie = {**GZIP, "Cookie": "a=b"}
    eventually(lambda: is_gzip(open_stream(server, "/events/a", headers=cookie)), 10, interval=0.1)
    server.publish("a", "x")
    assert is_gzip(first) and first.next_message().data == "x"


# ── what they are sent ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("query", ["", "?envelope=1", "?plain=1", "?envelope=1&plain=1"])
def test_each_event_can_be_read_before_the_next(quiet: Server, open_stream: OpenStream, query: str) -> None:
    channel = f"at-once-{len(query)}"
    compressed = open_stream(quiet, f"/events/{channel}{query}", headers=GZIP)
    usual = open_stream(quiet, f"/events/{channel}{query}")
    for number in range(200):
        quiet.publish(channel, text(number))
        assert compressed.next_message() == usual.next_message()
        if number == 20:
            begin = compressed.wire_bytes, usual.wire_bytes
    small, large = compressed.wire_bytes - begin[0], usual.wire_bytes - begin[1]
    assert small < 0.3 * large


def test_streams_join_in_mid_epoch_lag_and_resume(quiet: Server, open_stream: OpenStream) -> None:
    early = open_stream(quiet, "/events/seam", headers=GZIP)
    slow = open_stream(quiet, "/events/seam", headers=GZIP, receive_buffer=4096)
    noise = random.Random(1)
    data = [text(number) + (noise.randbytes(4000).hex() if number % 3 else "") for number in range(600)]
    late: list[SSEClient] = []
    for at in range(0, 600, 100):
        lines = [json.dumps({"channel": "seam", "data": one}) for one in data[at : at + 100]]
        assert (
            quiet.request("POST", "/events", "\n".join(lines), {"Content-Type": "application/x-ndjson"}).status == 201
        )
        assert [early.next_message().data for _ in range(100)] == data[at : at + 100]
        for client in late:
            assert [client.next_message().data for _ in range(100)] == data[at : at + 100]
        late.append(open_stream(quiet, "/events/seam", headers=GZIP))
    assert streams(quiet, "lagging") >= 1
    assert [slow.next_message().data for _ in range(600)] == data
    resumed = open_stream(quiet, "/events/seam", headers=GZIP, last_event_id="0-0")
    assert [resumed.next_message().data for _ in range(600)] == data
    quiet.publish("seam", "the end", "?close=1")
    for client in (early, slow, resumed, *late):
        assert client.next_message().data == "the end"
        client.read_to_end()
        assert client.ending is Ending.TERMINATED  # the trailer was checked


def test_a_chunk_of_incompressible_text(quiet: Server, open_stream: OpenStream) -> None:
    clients = [open_stream(quiet, "/events/noise", headers=GZIP) for _ in range(3)]
    noise = [f"{number} {random.Random(number).randbytes(32_000).hex()}" for number in range(8)]
    body = "\n".join(json.dumps({"channel": "noise", "data": one}) for one in noise)
    assert quiet.request("POST", "/events", body, {"Content-Type": "application/x-ndjson"}).status == 201
    for client in clients:
        assert [client.next_message().data for _ in noise] == noise


def test_heartbeats_keep_a_group_together(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server(SSE_HEARTBEAT=0.3)
    clients = [open_stream(server, "/events/a", headers=GZIP) for _ in range(2)]
    for number in range(3):
        server.publish("a", text(number))
        for client in clients:
            blocks = client.events_until(lambda block: not block.is_control)
            client.events_until(lambda block: block.is_heartbeat)
            assert blocks[-1].data == text(number)
    before = clients[0].wire_bytes
    clients[0].events_until(lambda block: block.is_heartbeat)
    assert clients[0].wire_bytes - before < 45  # alone it takes more than 60 bytes
    metrics = samples(server)
    assert 0 < metrics["sse_gzip_sent_bytes_total"] < metrics["sse_gzip_text_bytes_total"]


@pytest.mark.parametrize("how", ["drain", "revoked", "lease", "closed"])
def test_clean_ends_have_a_right_trailer(start_server: StartServer, open_stream: OpenStream, how: str) -> None:
    server = start_server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.5, SSE_MAX_STREAM_AGE=3 if how == "lease" else 0)
    clients = [open_stream(server, "/events/a", headers=GZIP) for _ in range(3)]
    for number in range(5):
        server.publish("a", text(number))
    for client in clients:
        assert [client.next_message().data for _ in range(5)] == [text(number) for number in range(5)]
    if how == "drain":
        server.terminate()
    elif how == "revoked":
        assert server.request("DELETE", "/streams?channel=a").status == 202
    elif how == "closed":
        server.request("POST", "/events/a?close=1")
    for client in clients:
        client.read_to_end(10)
        assert client.ending is Ending.TERMINATED and client.body.endswith(b"\n\n")


def test_a_stream_that_is_cut_has_no_trailer(start_server: StartServer, open_stream: OpenStream) -> None:
    server = start_server()
    client = open_stream(server, "/events/a", headers=GZIP)
    server.publish("a", "x")
    assert client.next_message().data == "x"
    server.kill()
    client.read_to_end()
    assert not client.ending.clean
