"""What a process commits is handed to its own followers; it must be what they would have read."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sse.events.model import Event, Record
from sse.events.trace import Trace
from sse.log.base import FOLLOW_CHARS, FOLLOW_RECORDS, Batch
from sse.log.sqlite import follow as sqlite_follow
from sse.log.sqlite.engine import SQLiteLog
from sse.log.sqlite.follow import Commit, Follower, commits
from tests.sse.log.children import start
from tests.sse.log.conftest import Follower as Following
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class NoWakeup:
    def ring(self) -> None:
        pass


@pytest.fixture
def follower() -> Follower:
    follower = Follower(NoWakeup())  # type: ignore[arg-type]
    follower.look = False
    return follower


def records(first: int, count: int, data: str = "x") -> list[Record]:
    return [Record(first + n, "a", None, None, data) for n in range(count)]


def commit(previous: int, first: int, count: int = 1, data: str = "x") -> Commit:
    return Commit(previous, records(first, count, data), (), count * len(data))


def positions(batch: list[Record]) -> list[int]:
    return [record.position for record in batch]


def test_takes_commits_that_follow_each_other(follower: Follower) -> None:
    follower.offer(commit(5, 10, 2))
    follower.offer(commit(11, 20))
    assert positions(follower.take(5)) == [10, 11, 20]
    assert follower.take(20) == [] and not follower.look


def test_what_was_committed_elsewhere_in_between_has_the_file_asked(follower: Follower) -> None:
    follower.offer(commit(5, 10))
    follower.offer(commit(15, 20))
    assert positions(follower.take(5)) == [10] and not follower.look
    assert follower.take(10) == [] and follower.look
    follower.look = False
    assert positions(follower.take(15)) == [20], "once it has been read"


@pytest.mark.parametrize("after", [10, 11, 12, 15])
def test_what_was_read_meanwhile_is_not_given_again(follower: Follower, after: int) -> None:
    """A page may end in the middle of a commit; the rest of that is read, too."""
    follower.offer(commit(5, 10, 3))
    follower.offer(commit(12, 20))
    assert positions(follower.take(after)) == ([20] if after == 12 else [])
    assert follower.look == (after < 12)


def test_batches_stay_within_a_followers_bounds(follower: Follower) -> None:
    half = "x" * (FOLLOW_CHARS // 2)
    for first in (10, 20, 30):
        follower.offer(commit(first - 10, first, data=half))
    assert positions(follower.take(0)) == [10, 20]
    follower.offer(commit(30, 40, FOLLOW_RECORDS))
    assert positions(follower.take(20)) == [30]
    assert len(follower.take(30)) == FOLLOW_RECORDS


@pytest.mark.parametrize(
    "large", [commit(0, 1, data="x" * (FOLLOW_CHARS + 1)), commit(0, 1, 30 * FOLLOW_RECORDS)], ids=["bytes", "records"]
)
def test_what_is_too_much_is_left_to_the_file(follower: Follower, large: Commit) -> None:
    follower.offer(large)
    assert follower.look and follower.take(0) == []


def test_what_waits_is_bounded_and_is_free_again_when_it_was_taken(follower: Follower) -> None:
    last = 0
    for _ in range(100):
        follower.offer(commit(last, last + 1, 500))
        last += 500
    assert follower.look
    taken, after = 0, 0
    while batch := follower.take(after):
        taken, after = taken + len(batch), batch[-1].position
    assert 0 < taken <= 20 * FOLLOW_RECORDS
    follower.look = False
    follower.offer(commit(last, last + 1))
    assert positions(follower.take(last)) == [last + 1]


def test_a_large_transaction_comes_in_pieces_each_with_the_traces_that_begin_in_it() -> None:
    first, last = Trace(1, 1500, PARENT), Trace(2001, 2001, PARENT)
    pieces = list(commits(0, records(1, 2001), [first, last]))
    assert [(piece.previous, len(piece.records), list(piece.traces)) for piece in pieces] == [
        (0, 1000, [first]),
        (1000, 1000, []),
        (2000, 1, [last]),
    ]


def test_a_trace_comes_with_its_records(follower: Follower) -> None:
    trace = Trace(10, 10, PARENT)
    follower.offer(Commit(5, records(10, 1), [trace], 1))
    batch = follower.take(5)
    assert isinstance(batch, Batch) and batch.traces == [trace]


def test_own_commits_are_not_read_back(
    open_sqlite: OpenSQLite, follow: Callable[..., Following], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_sqlite()
    follower = follow(log, log.bounds().latest)
    eventually(lambda: follower.reports)
    read: list[int] = []
    page = sqlite_follow.page

    def counted(*args: object) -> list[Record]:
        batch: list[Record] = page(*args)  # type: ignore[arg-type]
        read.append(len(batch))
        return batch

    monkeypatch.setattr(sqlite_follow, "page", counted)
    expected = [p for n in range(200) for p in log.append([Event("a", str(n), "kind", n)] * (1 + n % 3))]
    follower.wait_for(len(expected))
    assert positions(follower.records) == expected
    assert (follower.records[-1].event, follower.records[-1].retry, follower.records[-1].data) == ("kind", 199, "199")
    assert sum(read) == 0


WRITER = """
import sys
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10**6, retain_seconds=1000)
print("ready")
for n in range(300):
    log.append([Event("b", f"{n}.{i}") for i in range(1 + n % 7)])
"""


def test_own_commits_and_those_of_another_process_come_once_and_in_order(
    path: Path, open_sqlite: OpenSQLite, follow: Callable[..., Following]
) -> None:
    log = open_sqlite(retain_events=10**6)
    follower = follow(log)
    sizes = random.Random(1)

    def write() -> None:
        for _ in range(60):
            many = sizes.choice((1, 1, 1, 5, 1500))
            log.append([Event("a", "x" * sizes.choice((1, 100, 2000)))] * many)

    with start(WRITER, path) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            threads = [threading.Thread(target=write) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert child.wait(20) == 0
        finally:
            child.kill()
    written = log.read(None, 0, 10**6, 1 << 30)
    follower.wait_for(len(written), 20)
    assert follower.records == written


GROUPS = """
import sys
from gevent import monkey
monkey.patch_all()
import gevent
from sse.events.model import Event
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=10**6, retain_seconds=1000)
statements = []
log._writer.set_trace_callback(statements.append)
gevent.sleep(0.01)
publishers = [gevent.spawn(log.append, [Event("a", str(n))]) for n in range(16)]
gevent.joinall(publishers, raise_error=True)
print(statements.count("COMMIT"))
print([publisher.value[0] for publisher in publishers] == [r.position for r in log.read(None, 0, 100, 10**6)])
"""


def test_publishers_of_one_turn_of_the_event_loop_share_a_transaction(path: Path) -> None:
    child = start(GROUPS, path)
    output, _ = child.communicate(timeout=20)
    assert output.split() == ["2", "True"], "who comes first does not know that there are others"


@pytest.mark.parametrize("count", [1, 2, 4, 5, 255, 256, 257, 700])
@pytest.mark.parametrize("kinds", ["plain", "typed", "retried", "mixed"])
def test_any_number_of_rows_is_stored_as_it_is(open_sqlite: OpenSQLite, count: int, kinds: str) -> None:
    log: SQLiteLog = open_sqlite()
    shapes: dict[str, list[tuple[str | None, int | None]]] = {
        "plain": [(None, None)],
        "typed": [("t", None), (None, None)],
        "retried": [(None, 5)],
        "mixed": [(None, None), ("t", None), ("u", 0), (None, 7)],
    }
    several = shapes[kinds]
    events = [Event("abc"[n % 3], f"\0{n}ü", *several[n % len(several)]) for n in range(count)]
    stored = log.append(events)
    assert log.read(None, 0, 1000, 1 << 30) == [
        Record(position, e.channel, e.event, e.retry, e.data) for position, e in zip(stored, events, strict=True)
    ]
