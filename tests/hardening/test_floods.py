"""Floods of connections, streams and publishes, and subscribers that never read."""

from __future__ import annotations

import contextlib
import json
import socket
import time

from tests.conftest import StartServer
from tests.hardening.wire import one, request
from tests.live.observe import closed, resident_bytes, samples
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

KEY = "Authorization: Bearer publish-key-0123456789"


def test_a_flood_of_silent_connections_does_not_delay_probes(start_server: StartServer) -> None:
    """Each listener has its own WORKER_CONNECTIONS, so the health port does."""
    server = start_server(WORKER_CONNECTIONS=16, SSE_READ_HEADER_TIMEOUT=2)
    with contextlib.ExitStack() as flood:
        for number in range(100):
            sock = flood.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            if number % 2:
                sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        slowest = 0.0
        for _ in range(5):
            began = time.monotonic()
            for path in ("/healthz", "/readyz", "/metrics"):
                assert server.request("GET", path, port=server.health_port, timeout=3).status == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1.5
        found = samples(server)
        assert found['sse_connections{state="new"}'] <= 16
    # After the flood, others get connections again.
    eventually(lambda: server.request("GET", "/openapi.json", timeout=10).status == 200, 10)


def test_idle_connections_make_room_for_new_ones(start_server: StartServer) -> None:
    server = start_server(WORKER_CONNECTIONS=16)
    with contextlib.ExitStack() as flood:
        idle = []
        for _ in range(16):
            sock = flood.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
            sock.sendall(request("/openapi.json"))
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
            idle.append(sock)
        assert server.request("GET", "/openapi.json", timeout=5).status == 200
        assert samples(server)['sse_connections_closed_total{reason="evicted"}'] >= 1
        while idle[0].recv(65536):  # the oldest one, not the newest
            pass
        idle[-1].sendall(request("/openapi.json"))
        while b"HTTP/1.1 200 " not in (data := idle[-1].recv(65536)):
            assert data


def _stream(server: Server, source: str, forwarded: str = "") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=5, source_address=(source, 0))
    sock.sendall(request("/events/ip", *([f"X-Forwarded-For: {forwarded}"] if forwarded else [])))
    return sock


def _let_in(sock: socket.socket) -> bool:
    """True if this is a stream; the response to a refused one has a length."""
    octets = b""
    while b"retry: " not in octets:
        octets += sock.recv(4096)
    return b"Content-Length" not in octets


def test_streams_count_by_address_and_only_a_trusted_proxy_can_name_another(limited: Server) -> None:
    """SSE_MAX_STREAMS_PER_IP=3, SSE_TRUSTED_PROXIES=127.0.0.2."""
    with contextlib.ExitStack() as open_streams:

        def let_in(source: str, forwarded: str = "") -> bool:
            return _let_in(open_streams.enter_context(_stream(limited, source, forwarded)))

        # A client that writes the header itself still counts as one.
        assert [let_in("127.0.0.1", f"198.51.100.{n}") for n in range(6)] == [True] * 3 + [False] * 3
        assert let_in("127.0.0.3"), "another client's stream"
        # Behind the proxy, each client has three. What it wrote itself, left of the proxy's entry, does not count.
        for client in ("203.0.113.1", "203.0.113.2"):
            assert [let_in("127.0.0.2", f"10.9.8.{n}, {client}") for n in range(5)] == [True] * 3 + [False] * 2
        # An IPv6 site has 2^64 addresses, but counts as one client.
        assert [let_in("127.0.0.2", f"2001:db8:1:2::{n}") for n in range(5)] == [True] * 3 + [False] * 2
        assert let_in("127.0.0.2", "2001:db8:1:3::1")
    with contextlib.closing(_stream(limited, "127.0.0.1")) as again:
        eventually(lambda: _let_in(again) or True, 5)


def test_a_closed_stream_no_longer_counts(limited: Server) -> None:
    for _ in range(30):
        sock = _stream(limited, "127.0.0.4")
        eventually(lambda sock=sock: _let_in(sock), 5)  # type: ignore[misc]
        sock.close()


def test_publishing_faster_than_the_rate_is_429_with_retry_after(limited: Server) -> None:
    octets = request("/events/rate", KEY, "Content-Length: 1", method="POST", body=b"x")
    eventually(lambda: one(limited, octets).status == 201, 5, interval=0.5)  # earlier tests have used up the rate
    found = [one(limited, octets) for _ in range(25)]
    refused = [reply for reply in found if reply.status == 429]
    assert {reply.status for reply in found} == {201, 429} and refused
    for reply in refused:
        assert int(reply.header("retry-after") or 0) >= 1
        assert b"SSE_PUBLISH_RATE" in reply.body
    # The key is counted: also its bad requests, and those from other addresses.
    eventually(lambda: one(limited, octets, source="127.0.0.5").status == 429, 5, interval=0)
    batch = request("/events", KEY, "Content-Type: application/x-ndjson", "Content-Length: 1", method="POST", body=b"x")
    eventually(lambda: one(limited, batch).status == 429, 5, interval=0)
    # A client without the key does not use up its rate.
    assert one(limited, request("/events/rate", "Content-Length: 1", method="POST", body=b"x")).status == 401
    eventually(lambda: one(limited, octets).status == 201, 5, interval=0.5)


def test_subscribers_that_never_read_cost_little_memory_and_are_closed(start_server: StartServer) -> None:
    """Fifty of them stall while 32 MB of the largest events pass. A reader beside them gets every event."""
    server = start_server(SSE_WRITE_TIMEOUT=1, SSE_WINDOW_BYTES=1_000_000, SSE_RETAIN_EVENTS=2000)
    (worker,) = server.worker_pids()
    line = json.dumps({"channel": "big", "data": "x" * 65_536}).encode()
    batch = b"\n".join([line] * 100)
    with contextlib.ExitStack() as stack:
        deaf = [
            stack.enter_context(SSEClient(server.port, "/events/big", receive_buffer=4096)) for _ in range(50)
        ]
        before = resident_bytes(worker)
        peak = 0
        reader = stack.enter_context(SSEClient(server.port, "/events/big"))
        last = ""
        for _ in range(5):
            answer = server.request("POST", "/events", batch, {"Content-Type": "application/x-ndjson"}, timeout=20)
            assert answer.status == 201
            last = answer.json()["ids"][-1]
            seen = reader.events_until(lambda event, last=last: event.id == last, 20)  # type: ignore[misc]
            assert len([event for event in seen if event.data and len(event.data) == 65_536]) == 100
            peak = max(peak, resident_bytes(worker))
        assert peak - before < 120e6, f"{(peak - before) / 1e6:.0f} MB for fifty streams, each 32 MB behind"
        eventually(lambda: closed(server).get("write-timeout", 0) == len(deaf), 10, lambda: f"{closed(server)}")
        assert server.request("GET", "/healthz", port=server.health_port).status == 200
