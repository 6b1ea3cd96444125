"""With ?sync=full no power cut loses an event that a publisher or a reader knew of; without it, one does."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from sse.log import open_log
from tests.power.disk import Cut, Disk, power_disk
from tests.power.load import Known, Reader, publish
from tests.support.redis_server import RedisServer
from tests.support.server import Server
from tests.support.valkey import valkey_server

_EVERYTHING: Final = 10**9


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the disk's image and journal are: in memory, so that only its own flushes take time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


class Outcome:
    """What was known, and what the cuts took. cuts: how many. at_stake: unflushed writes at them."""

    def __init__(self) -> None:
        self.acknowledged: list[Known] = []
        self.seen: list[Known] = []
        self.cuts = self.at_stake = 0
        self.lost_acknowledged = self.lost_seen = 0

    def compare(self, cut: Cut, found: set[int]) -> None:
        self.cuts += 1
        self.at_stake += len(cut.unflushed)
        self.lost_acknowledged += sum(one.at < cut.at and one.position not in found for one in self.acknowledged)
        self.lost_seen += sum(one.at < cut.at and one.position not in found for one in self.seen)

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} acknowledged, {len(self.seen)} delivered, {self.cuts} cuts with "
            f"{self.at_stake} unflushed writes: {self.lost_acknowledged} acknowledged and {self.lost_seen} delivered lost"
        )


def positions(url: str) -> set[int]:
    """Open the log and return all it holds."""
    with contextlib.closing(open_log(url, retain_events=_EVERYTHING, retain_seconds=_EVERYTHING)) as log:
        return {record.position for record in log.read(["power"], 0, _EVERYTHING, _EVERYTHING)}


def cut_again_and_again(
    disk: Disk, folder: Path, url: str, find: Callable[[Path], set[int]], connections: int, *, seconds: float, cuts: int
) -> Callable[[], Outcome]:
    """Load the service; return what compares cuts once the disk is unmounted."""
    outcome = Outcome()
    with Server(SSE_LOG=url, WEB_CONCURRENCY=2) as server, Reader(server.port) as reader:
        since = time.monotonic_ns()
        outcome.acknowledged = publish(server.port, connections, seconds)
        until = time.monotonic_ns()
    outcome.seen = reader.seen
    assert len(outcome.acknowledged) > 20 and len(outcome.seen) > 20

    def compare() -> Outcome:
        for cut in disk.cuts(cuts, since, until, seed=connections):
            with cut.mounted(folder) as found:
                outcome.compare(cut, find(found))
        print(outcome)
        return outcome

    return compare


def cut_sqlite(folder: Path, option: str, connections: int, *, seconds: float = 1.0, cuts: int = 8) -> Outcome:
    with power_disk(folder) as disk:
        compare = cut_again_and_again(
            disk,
            folder,
            f"sqlite:///{disk.path}/new/log.db{option}",
            lambda found: positions(f"sqlite:///{found}/new/log.db"),
            connections,
            seconds=seconds,
            cuts=cuts,
        )
    return compare()


def cut_redis(
    folder: Path, option: str, policy: str, connections: int, *, seconds: float = 1.5, cuts: int = 6
) -> Outcome:
    def server(directory: Path) -> RedisServer:
        return RedisServer(program=valkey_server(), directory=directory, appendfsync=policy)

    def find(found: Path) -> set[int]:
        with server(found / "redis") as after:
            return positions(after.url)

    valkey_server()
    with power_disk(folder) as disk:
        (disk.path / "redis").mkdir()
        with server(disk.path / "redis") as redis:
            compare = cut_again_and_again(
                disk, folder, redis.url + option, find, connections, seconds=seconds, cuts=cuts
            )
    return compare()


@pytest.mark.parametrize("connections", [1, 16])
def test_sqlite_loses_nothing_that_anybody_knew_of(folder: Path, connections: int) -> None:
    outcome = cut_sqlite(folder, "?sync=full", connections)
    assert (outcome.lost_acknowledged, outcome.lost_seen) == (0, 0), outcome
    assert outcome.at_stake > 0


def test_sqlite_loses_events_without_the_option(folder: Path) -> None:
    """The disk of these tests does lose what was not flushed."""
    outcome = cut_sqlite(folder, "", 16)
    assert outcome.lost_acknowledged > 0 and outcome.lost_seen > 0, outcome


def test_redis_loses_nothing_that_anybody_knew_of(folder: Path) -> None:
    outcome = cut_redis(folder, "?sync=full", "always", 16)
    assert (outcome.lost_acknowledged, outcome.lost_seen) == (0, 0), outcome


def test_redis_loses_events_without_the_option(folder: Path) -> None:
    outcome = cut_redis(folder, "", "everysec", 16)
    assert outcome.lost_acknowledged > 0, outcome


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("connections", [1, 16])
def test_sqlite_loses_nothing_at_hundreds_of_cuts(folder: Path, connections: int) -> None:
    outcome = cut_sqlite(folder, "?sync=full", connections, seconds=12, cuts=300)
    assert (outcome.lost_acknowledged, outcome.lost_seen) == (0, 0), outcome


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("connections", [1, 16])
def test_redis_loses_nothing_at_hundreds_of_cuts(folder: Path, connections: int) -> None:
    outcome = cut_redis(folder, "?sync=full", "always", connections, seconds=10, cuts=150)
    assert (outcome.lost_acknowledged, outcome.lost_seen) == (0, 0), outcome
