"""Whether another process follows a log is known at once, and forgotten with the process."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sse.log.sqlite import others
from sse.log.sqlite.engine import SQLiteLog
from sse.log.sqlite.others import Others
from tests.sse.log.children import start
from tests.sse.log.conftest import Follower, data, fill
from tests.support.wait import eventually

OpenSQLite = Callable[..., SQLiteLog]

FOLLOWER = """
import sys, threading
from sse.log.sqlite.engine import SQLiteLog
log = SQLiteLog(sys.argv[1], retain_events=100, retain_seconds=1000)
for batch in log.follow(0, threading.Event()):
    print("following")
"""


def test_a_follower_of_another_process_is_seen_until_it_dies(path: Path, open_sqlite: OpenSQLite) -> None:
    log = open_sqlite()
    assert not log._others.exist()
    with start(FOLLOWER, path) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert log._others.exist()
        child.send_signal(signal.SIGKILL)
    assert not log._others.exist()


def test_ones_own_followers_are_no_others(open_sqlite: OpenSQLite, follow: Callable[..., Follower]) -> None:
    log = open_sqlite()
    follower = follow(log)
    eventually(lambda: follower.reports)
    assert not log._others.exist()
    assert open_sqlite()._others.exist()


def test_the_last_follower_to_stop_is_forgotten(path: Path) -> None:
    here, there = Others(str(path)), Others(str(path))
    here.follow_too()
    here.follow_too()
    here.stop_following()
    assert there.exist()
    here.stop_following()
    assert not there.exist()
    here.follow_too()
    here.close()
    assert not there.exist()
    here.stop_following()  # late, by a thread that was still reading
    there.close()


@pytest.mark.parametrize("why", ["no such locks", "refused by the file system"])
def test_where_nobody_can_be_told_everybody_is_announced_to(
    open_sqlite: OpenSQLite, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refuse(*args: object) -> bytes:
        raise OSError(22, "Invalid argument")

    if why == "no such locks":
        monkeypatch.setattr(others, "_ASK", None)
        monkeypatch.setattr(others, "_SET", None)
    else:
        monkeypatch.setattr(fcntl, "fcntl", refuse)
    here, there = open_sqlite(), open_sqlite()
    follower = follow(there)
    eventually(lambda: follower.reports)
    for n in range(1, 6):
        fill(here, "a")
        follower.wait_for(n, 0.8)  # unprompted, it looks once a second
    assert data(follower.records) == ["0"] * 5
