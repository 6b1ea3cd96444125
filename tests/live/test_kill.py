"""``kill -9`` of the master and all workers, again and again, in the middle of publishing at full speed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.ledger import check, owed
from tests.support.publisher import Publishers
from tests.support.resuming_client import ResumingClient
from tests.support.server import Server

CHANNELS = ("a", "b", "c")
TYPES = ("", "x")
SUBSCRIPTIONS = (
    ("/events/a", ("a",), None),
    ("/events?channel=a&channel=b&channel=c", CHANNELS, None),
    ("/events?channel=b&channel=c&event=x", ("b", "c"), ("x",)),
)


def _has(last: str) -> Callable[[ResumingClient], bool]:
    return lambda client: bool(client.ids) and client.ids[-1] == last


def killing(rounds: int, *, seed: int, at_any_moment: bool, sizes: Sequence[int] = (3_000, 30_000, 120_000)) -> None:
    """``at_any_moment``: also while it starts; else each start is followed by some publishing first.

    :param sizes: bytes that the ledgers grow between two kills, chosen by chance.
    """
    choose = random.Random(seed)
    settings: dict[str, Any] = {"LOG_LEVEL": "warning", "SSE_RETRY": 50, "SSE_HEARTBEAT": 0.2}
    with ExitStack() as stack:
        keeps: dict[str, Any] = {"SSE_REPLAY_LIMIT": 10**6, "SSE_RETAIN_EVENTS": 10**7}
        server = stack.enter_context(Server(WEB_CONCURRENCY=2, **settings, **keeps))
        clients = [
            (stack.enter_context(ResumingClient(server.port, target, retry=50)), channels, types)
            for target, channels, types in SUBSCRIPTIONS * 2
        ]
        for client, _, _ in clients:
            client.wait_connected(20)
        publishers = stack.enter_context(Publishers(server.port, 2, channels=CHANNELS, types=TYPES))
        for _ in range(rounds):
            if at_any_moment and choose.random() < 0.3:
                time.sleep(choose.uniform(0, 1.5))
            else:
                publishers.wait_progress(choose.choice(sizes))
            server.kill()
            server.start(ready=False)
        published = publishers.stop()
        print(f"{rounds} kills, {len(published)} events acknowledged")
        assert len(published) > 20 * rounds, "that was no full speed"
        assert len({entry.data for entry in published}) == len(published), "an event was acknowledged twice"
        for client, channels, types in clients:
            expected = owed(published, client.control[0].id or "", channels, types)
            client.wait_for(_has(expected[-1]), 30)
            assert client.failed is None
            assert not client.resets
            check(client.ids, expected, client)
            assert client.reconnects >= rounds / 3, "it hardly ever was connected when the server was killed"
            order = {entry.id: entry.data.rstrip(".") for entry in published}
            for name in ("p0", "p1"):
                numbers = [int(order[i].split("-")[1]) for i in client.ids if order[i].startswith(name)]
                assert numbers == sorted(set(numbers)), "a publisher's events out of its order, or twice"


def test_kills_during_publishing_lose_repeat_and_reorder_nothing() -> None:
    killing(6, seed=1, at_any_moment=False, sizes=(3_000, 10_000, 30_000))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_kills_at_any_moment_lose_repeat_and_reorder_nothing() -> None:
    killing(100, seed=2, at_any_moment=True)


def test_one_worker_that_is_killed_is_replaced_and_its_clients_resume_on_the_others() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Server(WEB_CONCURRENCY=2, SSE_RETRY=50, LOG_LEVEL="warning"))
        clients = [stack.enter_context(ResumingClient(server.port, "/events/a", retry=50)) for _ in range(8)]
        for client in clients:
            client.wait_connected(10)
        publishers = stack.enter_context(Publishers(server.port, 2))
        for _ in range(2):
            publishers.wait_progress()
            os.kill(server.worker_pids()[0], signal.SIGKILL)
        publishers.wait_progress()
        published = publishers.stop()
        for client in clients:
            expected = owed(published, client.control[0].id or "")
            client.wait_for(_has(expected[-1]), 20)
            check(client.ids, expected, client)
        assert sum(client.reconnects for client in clients) > 0
