"""A rolling restart of three instances behind nginx, as Kubernetes does it: endpoint out, SIGTERM, the next one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.reader import BOOK, Reckoning
from tests.chaos.recorder import Acknowledged
from tests.live.crowd import Crowd, Member, busiest
from tests.support.ledger import check, position
from tests.support.wait import eventually

CHANNELS = ("a", "b")


def has(member: Member, last: str) -> bool:
    """Return whether it got this event on its current connection."""
    return f"id: {last}\n".encode() in member.raw


def settle(crowd: Crowd, acknowledged: Sequence[Acknowledged]) -> int:
    """Check that every member saw all of its channel since its opening, once and in order; return how many events."""
    seen = 0
    for member in crowd.members:
        channel = CHANNELS[member.number % 2]
        opening = next(block for one in member.connections for block in one.blocks if block.id)
        begin = position(opening.id or "")
        owed = [one.id for one in acknowledged if one.channel == channel and one.position > begin]
        ids = [block.id or "" for block in member.messages]
        check(ids, owed, f"client {member.number}")
        statuses = {one.status for one in member.connections if one.status}
        assert statuses == {200}, f"a browser would have given up for ever: {statuses}"
        assert not any(block.event == "stream-reset" for one in member.connections for block in one.blocks)
        seen += len(ids)
    return seen


@pytest.mark.parametrize(
    ("clients", "rounds", "window"),
    [
        pytest.param(100, 1, 0.6, id="100 clients, once"),
        pytest.param(1000, 5, 5.0, id="1000 clients, five times", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_rolling_restart_of_three_instances_loses_nothing(
    stack: ExitStack, clients: int, rounds: int, window: float
) -> None:
    fleet = stack.enter_context(Fleet(3, SSE_DRAIN_DELAY=0.2, SSE_DRAIN_WINDOW=window, SSE_RETRY=500))
    crowd = Crowd(fleet.port, lambda number: f"/events/{CHANNELS[number % 2]}", clients)
    with crowd:
        crowd.wait_open(60)
        with fleet.recorder(rate=20) as recorder:
            recorder.progress()
            for _ in range(rounds):
                for server in fleet.servers:
                    fleet.nginx.serve([port for port in fleet.ports if port != server.port])
                    server.terminate()
                    server.wait(60)
                    server.start()
                    fleet.nginx.serve(fleet.ports)
                crowd.wait_open(60)
            recorder.progress()
        acknowledged = recorder.finish()
        last = {channel: [one.id for one in acknowledged if one.channel == channel][-1] for channel in CHANNELS}
        eventually(
            lambda: all(has(member, last[CHANNELS[member.number % 2]]) for member in crowd.members),
            60,
            lambda: f"{crowd}: not all have the last event",
            interval=0.1,
        )
    assert not crowd.errors()
    seen = settle(crowd, acknowledged)
    again = crowd.attempts[clients:]
    peak, burst = busiest(again, 1.0), busiest(again, 0.1)
    assert len(again) >= clients * rounds * 0.6, "hardly anybody had to come back"
    note = f"reconnect peak {peak} in a second, {burst} in 0.1 s"
    book = f"rolling restart of 3 instances, {rounds} x, {clients} clients"
    BOOK.append(Reckoning(book, len(acknowledged), clients, seen, len(again), 0, 0, note))
    # A reload closes nginx's idle connections, and an instance that ends closes its own. A POST on its way then gets 502
    # or no answer, and nginx must not repeat it. The publisher may, with its key.
    repeated = [attempt.status for attempt in recorder.attempts if attempt.status != 201]
    assert set(repeated) <= {0, 502} and len(repeated) <= 9 * rounds, f"a publisher was refused: {repeated}"
