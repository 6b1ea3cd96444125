"""Floods: connections, streams, publishes, and a subscriber that never reads. What is bounded, and for whom."""

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


def test_a_flood_of_silent_connections_fills_the_pool_and_no_probe_waits(start_server: StartServer) -> None:
    """WORKER_CONNECTIONS is one listener's: the health port has its own."""
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
    # The pool is everybody's again.
    eventually(lambda: server.request("GET", "/openapi.json", timeout=10).status == 200, 10)


def test_connections_that_are_kept_idle_make_room_for_new_ones(start_server: StartServer) -> None:
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
        while idle[0].recv(65536):  # the oldest, and not the one that came last
            pass
        idle[-1].sendall(request("/openapi.json"))
        while b"HTTP/1.1 200 " not in (data := idle[-1].recv(65536)):
            assert data


def _stream(server: Server, source: str, forwarded: str = "") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=5, source_address=(source, 0))
    sock.sendall(request("/events/ip", *([f"X-Forwarded-For: {forwarded}"] if forwarded else [])))
    return sock


def _let_in(sock: socket.socket) -> bool:
    """Whether it is a stream: what one that is sent away gets has a length."""
    octets = b""
    while b"retry: " not in octets:
        octets += sock.recv(4096)
    return b"Content-Length" not in octets


def test_streams_are_counted_by_address_and_only_a_trusted_proxy_says_whose(limited: Server) -> None:
    """SSE_MAX_STREAMS_PER_IP=3, SSE_TRUSTED_PROXIES=127.0.0.2."""
    with contextlib.ExitStack() as open_streams:

        def let_in(source: str, forwarded: str = "") -> bool:
            return _let_in(open_streams.enter_context(_stream(limited, source, forwarded)))

        # Whoever writes the header himself is still one client.
        assert [let_in("127.0.0.1", f"198.51.100.{n}") for n in range(6)] == [True] * 3 + [False] * 3
        assert let_in("127.0.0.3"), "somebody else's"
        # Behind the proxy each client has three; what it wrote itself, left of the proxy's word, does not count.
        for client in ("203.0.113.1", "203.0.113.2"):
            assert [let_in("127.0.0.2", f"10.9.8.{n}, {client}") for n in range(5)] == [True] * 3 + [False] * 2
        # A site with IPv6 has 2^64 addresses, and still is one client.
        assert [let_in("127.0.0.2", f"2001:db8:1:2::{n}") for n in range(5)] == [True] * 3 + [False] * 2
        assert let_in("127.0.0.2", "2001:db8:1:3::1")
    with contextlib.closing(_stream(limited, "127.0.0.1")) as again:
        eventually(lambda: _let_in(again) or True, 5)


def test_the_places_of_streams_that_went_are_free_again(limited: Server) -> None:
    for _ in range(30):
        sock = _stream(limited, "127.0.0.4")
        eventually(lambda sock=sock: _let_in(sock), 5)  # type: ignore[misc]
        sock.close()
        time.sleep(0.01)


def test_publishing_faster_than_the_rate_is_429_and_says_when_again(limited: Server) -> None:
    time.sleep(1.2)  # the burst is whole again
    octets = request("/events/rate", KEY, "Content-Length: 1", method="POST", body=b"x")
    found = [one(limited, octets) for _ in range(25)]
    refused = [reply for reply in found if reply.status == 429]
    assert {reply.status for reply in found} == {201, 429} and refused
    for reply in refused:
        assert int(reply.header("retry-after") or 0) >= 1
        assert b"SSE_PUBLISH_RATE" in reply.body
    # Bad requests count as well, and so do those from other addresses: it is the key's.
    eventually(lambda: one(limited, octets, source="127.0.0.5").status == 429, 5, interval=0)
    batch = request("/events", KEY, "Content-Type: application/x-ndjson", "Content-Length: 1", method="POST", body=b"x")
    eventually(lambda: one(limited, batch).status == 429, 5, interval=0)
    # Who has no key does not use up the rate of who has.
    assert one(limited, request("/events/rate", "Content-Length: 1", method="POST", body=b"x")).status == 401
    time.sleep(1.2)
    assert one(limited, octets).status == 201


def test_a_subscriber_that_never_reads_costs_a_bounded_amount_and_is_closed(start_server: StartServer) -> None:
    """Fifty of them, while 64 MB of the largest events pass; a reader beside them gets every one."""
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
        assert peak - before < 120e6, f"{(peak - before) / 1e6:.0f} MB for fifty streams that are owed 32 MB each"
        eventually(lambda: closed(server).get("write-timeout", 0) == len(deaf), 10, lambda: f"{closed(server)}")
        assert server.request("GET", "/healthz", port=server.health_port).status == 200
