"""Two workers, one log: events published through one are received through the other, at once and in order."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.live.workers import worker_of
from tests.support.server import Answer, Server
from tests.support.sse_client import SSEClient

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(WEB_CONCURRENCY=2, LOG_LEVEL="warning") as running:
        yield running


def batch(server: Server, lines: list[bytes], **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("POST", "/events", b"\n".join(lines), {**NDJSON, **named}, timeout=20)


def test_the_median_from_publish_to_receive_is_below_ten_milliseconds_across_workers(server: Server) -> None:
    with ExitStack() as stack:
        publisher = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def publish(body: str) -> None:
            head = f"POST /events/latency HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            publisher.sendall(f"{head}{body}".encode())
            assert publisher.recv(4096).startswith(b"HTTP/1.1 201 ")

        publish("first")
        here = worker_of(server, publisher)
        for _ in range(50):
            client = stack.enter_context(SSEClient(server.port, "/events/latency"))
            client.next_event()
            if worker_of(server, client.socket) != here:
                break
        else:
            raise AssertionError("fifty connections, and all on one worker")
        times: list[float] = []
        for number in range(150):
            began = time.monotonic()
            publish(str(number))
            assert client.next_message().data == str(number)
            times.append((time.monotonic() - began) * 1000)
            time.sleep(0.003)
        median = statistics.median(times)
        print(f"publish on one worker, receive on the other: median {median:.2f} ms, 95 % {sorted(times)[142]:.2f} ms")
        assert median < 10 * 3, "three times the bar: others use this machine, too"


def test_both_workers_serve_streams_and_each_is_complete(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(server.port, "/events/both")) for _ in range(20)]
        for client in clients:
            client.next_event()
        with ThreadPoolExecutor(8) as pool:  # each publish on a connection of its own: on either worker
            ids = list(pool.map(lambda n: server.publish("both", str(n)), range(60)))
        for client in clients:
            seen = [client.next_message().id for _ in ids]
            assert seen == sorted(ids, key=lambda name: tuple(map(int, name.split("-"))))


def test_order_across_channels_is_the_order_of_the_log_for_every_stream(server: Server) -> None:
    channels = [f"o{n}" for n in range(5)]
    target = "/events?" + "&".join(f"channel={name}" for name in channels)
    with ExitStack() as stack:
        clients = [stack.enter_context(SSEClient(server.port, target)) for _ in range(6)]
        for client in clients:
            client.next_event()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: server.publish(channels[n % 5], str(n)), range(100)))
        ledgers = [[client.next_message()[:3] for _ in range(100)] for client in clients]
        assert all(ledger == ledgers[0] for ledger in ledgers), "every client sees the same order"
        positions = [tuple(map(int, (name or "").split("-"))) for name, *_ in ledgers[0]]
        assert positions == sorted(set(positions))


def test_a_batch_of_ten_thousand_is_answered_in_under_a_second_and_received_in_order(server: Server) -> None:
    lines = [b'{"channel":"big","data":{"n":%d}}' % n for n in range(10_000)]
    with SSEClient(server.port, "/events/big") as client:
        client.next_event()
        began = time.monotonic()
        answer = batch(server, lines)
        took = time.monotonic() - began
        assert answer.status == 201
        ids = answer.json()["ids"]
        events = [client.next_message(20) for _ in ids]
    print(f"a batch of 10,000 was answered in {took * 1000:.0f} ms")
    assert took < 1 * 4, "four times the bar: others use this machine, too"
    assert [event.id for event in events] == ids
    assert [json.loads(event.data or "")["n"] for event in events] == list(range(10_000))


def test_an_idempotency_key_stores_once_through_either_worker_and_refuses_another_body(server: Server) -> None:
    def publish(body: str, key: str = "order-17", channel: str = "once") -> Answer:
        return server.request("POST", f"/events/{channel}", body, {"Idempotency-Key": key})

    with ThreadPoolExecutor(8) as pool:  # at the same time, on both workers
        answers = list(pool.map(lambda _: publish("tea"), range(24)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    elsewhere = publish("tea", channel="elsewhere")
    assert elsewhere.status == 201 and elsewhere.json()["id"] != answers[0].json()["id"]
    for other in (publish("coffee"), publish("coffee", channel="elsewhere")):
        assert other.status == 422
        assert other.headers["Content-Type"] == "application/problem+json"
        assert other.json()["status"] == 422
    publish("tea", "order-18")
    with SSEClient(server.port, "/events/once?since=earliest") as client:
        client.next_event()
        assert [client.next_message().data for _ in range(2)] == ["tea", "tea"]
        server.publish("once", "last")
        assert client.next_message().data == "last"


def test_a_batch_has_one_idempotency_key_for_all_its_events(server: Server) -> None:
    lines = [b'{"channel":"keyed","data":"%d"}' % n for n in range(50)]
    first, again = (batch(server, lines, Idempotency_Key="batch-1") for _ in range(2))
    assert (first.status, again.status) == (201, 201)
    assert first.json() == again.json()
    assert batch(server, lines[:-1], Idempotency_Key="batch-1").status == 422
    with SSEClient(server.port, "/events/keyed?since=earliest") as client:
        server.publish("keyed", "last")
        events = client.events_until(lambda event: event.data == "last", 5)
    assert Counter(event.id for event in events[1:-1]) == Counter(first.json()["ids"])


def test_idempotency_keys_are_remembered_across_restarts() -> None:
    with Server(WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=0) as server:
        name = server.publish("a", "tea", Idempotency_Key="k")
        for restart in ("kill", "terminate"):
            getattr(server, restart)()
            server.wait(40)
            server.start()
            assert server.publish("a", "tea", Idempotency_Key="k") == name
            other = server.request("POST", "/events/a", "coffee", {"Idempotency-Key": "k"})
            assert other.status == 422
