"""How events enter a worker: in steps that let others run, and into all groups or none."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sse.events.model import Event, Record
from sse.events.wire import Frame
from sse.streams.group import Group, Subscription
from sse.streams.hub import GIVEN_PER_STEP, RECORDS_PER_STEP
from tests.sse.worker_parts import Parts, Stepped, numbers
from tests.support.wait import eventually


def test_a_failed_dispatch_ends_the_streams_and_they_resume_without_a_hole(
    closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window has the events, some groups do not: a stream that went on would miss them unknowingly."""
    site = Stepped(closing)
    start = site.hub.window.position
    first = site.open(start)
    other = site.open(start, site.hub.join(Subscription(frozenset({"a", "b"}))))
    give, given = site.hub._give, list[int]()

    def failing(group: Group, frame: Frame) -> None:
        given.append(frame.position)
        if len(given) == 2:
            raise ZeroDivisionError("a bug")
        give(group, frame)

    monkeypatch.setattr(site.hub, "_give", failing)
    site.parts.log.append([Event("a", "1"), Event("a", "2")])
    with pytest.raises(ZeroDivisionError):
        site.dispatch()
    for client in (first, other):
        eventually(lambda client=client: (client.read(10_000), client.finished)[1], 5)  # type: ignore[misc]
        assert [block.data for block in client.blocks if not block.is_control] == []
        resumed = site.open(client.begin)
        eventually(lambda resumed=resumed: (resumed.read(10_000), len(resumed.blocks) == 2)[1], 5)  # type: ignore[misc]


def steps(worker: Parts, batch: list[Record]) -> list[int]:
    """Return how many events each step of a batch has."""
    sizes, begin = list[int](), 0
    while begin < len(batch):
        end = worker.hub.step(batch, begin)
        sizes.append(end - begin)
        begin = end
    return sizes


def records(count: int, channel: str = "a") -> list[Record]:
    return [Record(position, channel, None, None, "x") for position in range(1, count + 1)]


def test_a_step_is_bounded_in_events() -> None:
    worker = Parts("memory:")
    assert steps(worker, records(RECORDS_PER_STEP)) == [RECORDS_PER_STEP]
    assert steps(worker, records(2 * RECORDS_PER_STEP + 1)) == [RECORDS_PER_STEP, RECORDS_PER_STEP, 1]
    worker.log.close()


def test_a_step_is_bounded_in_the_groups_that_get_its_events() -> None:
    """Threat: a batch of 500 events, each for ten thousand groups, held up a worker for more than a second."""
    worker = Parts("memory:")
    for n in range(GIVEN_PER_STEP // 10):
        worker.hub.join(Subscription(frozenset({"everybody", f"only-{n}"})))
    assert steps(worker, records(25, "everybody")) == [10, 10, 5]
    assert steps(worker, records(25, "only-7")) == [25]
    for n in range(GIVEN_PER_STEP):
        worker.hub.join(Subscription(frozenset({"everybody", f"more-{n}"})))
    assert steps(worker, records(3, "everybody")) == [1, 1, 1]
    worker.log.close()


def test_a_batch_for_many_groups_reaches_each_in_order(closing: ExitStack) -> None:
    worker = closing.enter_context(Parts("memory:"))
    streams = [worker.open(None, "a", f"only-{n}") for n in range(3)]
    for n in range(GIVEN_PER_STEP // 4):
        worker.hub.join(Subscription(frozenset({"a", f"group-{n}"})))
    worker.log.append([Event("a", number) for number in numbers(1, 50)])
    for stream in streams:
        assert stream.read(50) == numbers(1, 50)


@pytest.mark.parametrize("what", ["replaced", "overtaken"])
def test_a_gap_drops_what_a_group_has_pending(closing: ExitStack, what: str) -> None:
    """A stream that joins begins at its group's position, which must not lie before the gap."""
    site = Stepped(closing)
    client = site.open(site.hub.window.position)
    group = client.stream.group
    (owed,) = site.append("never to be sent")
    assert group.position(site.hub.window.position) == owed - 1
    site.hub.replaced() if what == "replaced" else site.hub.overtaken(owed + 5)
    assert group.position(site.hub.window.position) == site.hub.window.position
    eventually(lambda: (client.read(10_000), client.finished)[1], 5)
    assert [block.data for block in client.blocks if not block.is_control] == []


@pytest.mark.parametrize("channel", ["a", "_canary"])
def test_a_group_is_queued_for_its_pass_only_once(closing: ExitStack, channel: str) -> None:
    site = Stepped(closing)
    client = site.open(site.hub.window.position, site.hub.join(Subscription(frozenset({channel}))))
    for _ in range(3):
        site.append("x")
        site.hub.inject(channel, b": x\n\n")
    assert list(site.hub.dirty) == [client.stream.group]
