"""A log that is exported and imported is the same log, from any engine to any engine, while it is in use."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from sse.events.markers import is_erasure
from sse.events.model import Event, Record, make_position
from sse.log import Log, LogUnavailable, open_log, open_tools
from sse.log.archive import BadArchive, Note, Reader
from sse.log.export import export
from sse.log.load import Loaded, load
from sse.log.redis.scripts.head import LOADING
from sse.log.tools import Occupied
from tests.sse.log.conftest import Place, trim_all
from tests.sse.log.life import BYTES, CHANNELS, LIMIT, Life
from tests.sse.log.redis_place import redis_server
from tests.support.wait import eventually

#: URLs of logs that are not there yet.
New = Callable[[str], str]


@pytest.fixture
def new(request: pytest.FixtureRequest, tmp_path: Path) -> New:
    server, numbers = redis_server(request), count(1)

    def make(kind: str) -> str:
        n = next(numbers)
        return f"sqlite:///{tmp_path}/new{n}.db" if kind == "sqlite" else f"redis://127.0.0.1:{server.port}/{n}"

    return make


def opened(url: str) -> Log:
    return open_log(url, retain_events=100_000, retain_seconds=86_400)


def archive(log: Log, since: int = 0, *, behind: bool = False) -> bytes:
    out = io.BytesIO()
    export(log, out.write, since, ["revoked"], behind=behind)
    return out.getvalue()


def imported(octets: bytes, url: str, *, tell: bool = False, force: bool = False) -> Loaded:
    with closing(open_tools(url).loader(force=force)) as loader:
        loaded = load(Reader(io.BytesIO(octets)), loader)
        loader.finish(loaded.marks, tell=tell, receipt=loaded.receipt)
    return loaded


def content(log: Log) -> tuple[object, ...]:
    channels = log.channels()
    return log.read(None, 0, LIMIT, BYTES), channels, log.closed([info.channel for info in channels])


def check_truth(log: Log, stored: list[Record]) -> None:
    """Whatever a client may have missed by trimming, it is told of."""
    held = {record.position for record in log.read(None, 0, LIMIT, BYTES)}
    for channel in CHANNELS:
        for record in stored:
            if record.channel == channel and record.position not in held:
                assert log.gone([channel], record.position - 1) >= record.position, record


@pytest.mark.parametrize("target", ["sqlite", "redis"])
@pytest.mark.parametrize("source", ["sqlite", "redis"])
@pytest.mark.parametrize("seed", range(5))
def test_any_log_is_the_same_after_its_journey(seed: int, source: str, target: str, new: New, no_grace: None) -> None:
    dice = random.Random(seed)
    with closing(opened(new(source))) as log:
        life = Life(log, dice)
        octets, since = b"", 0
        for _ in range(dice.randrange(1, 4)):
            life.go_on(25)
            try:
                octets += archive(log, since, behind=True)
            except BadArchive:  # something was erased, and the mark of that was trimmed
                octets = archive(log)
            since = log.bounds().latest
        url = new(target)
        imported(octets, url)
        with closing(opened(url)) as other:
            records, channels, closed = content(other)
            left, left_channels, left_closed = content(log)
            # What the log has trimmed between two exports is still in them.
            assert set(left) <= set(records) and closed == left_closed  # type: ignore[call-overload]
            assert {r for r in set(records) - set(left) if r not in life.stored} == set()  # type: ignore[call-overload]
            if octets.count(b'{"headwater"') == 1:
                assert (records, channels) == (left, left_channels)
            check_truth(other, life.stored)
            before, after = log.bounds(), other.bounds()
            assert (after.latest, after.began, after.lost) == (before.latest, before.began, 0)
            # And it goes on as a log does.
            assert other.append([Event("new", "x")])[0] > after.latest
            trim_all(other)
            assert [info for info in other.channels() if info.channel != "new"] == channels


@pytest.mark.parametrize("target", ["sqlite", "redis"])
@pytest.mark.parametrize("source", ["sqlite", "redis"])
def test_a_log_that_was_never_trimmed_is_known_to_be_whole(source: str, target: str, new: New) -> None:
    with closing(opened(new(source))) as log:
        positions = log.append([Event(channel, "x") for channel in CHANNELS * 300])
        url = new(target)
        imported(archive(log), url)
        with closing(opened(url)) as other:
            assert other.bounds() == log.bounds() and other.bounds().complete
            assert content(other) == content(log)
            assert other.floor(["a"], 0, 10) == log.floor(["a"], 0, 10)
            assert other.gone(["a"], 0) == 0 and other.newest(["a"], 1, BYTES)[0].position == positions[-4]


@pytest.mark.parametrize("target", ["sqlite", "redis"])
def test_what_an_export_begins_behind_is_gone(target: str, new: New) -> None:
    with closing(opened(new("sqlite"))) as log:
        positions = log.append([Event("a", str(n)) for n in range(5)])
        url = new(target)
        imported(archive(log, positions[2]), url)
        with closing(opened(url)) as other:
            assert [record.data for record in other.read(["a"], 0, LIMIT, BYTES)] == ["3", "4"]
            assert other.gone(["a"], positions[1]) == positions[2] and other.gone(["a"], positions[2]) == 0


def test_nothing_that_was_stored_before_an_export_is_missing_from_it_while_publishers_go_on(shared_place: Place) -> None:
    log, stop, stored = shared_place.open(), threading.Event(), []

    def publish() -> None:
        while not stop.wait(0.002):
            stored.extend(log.append([Event("a", "x" * 300)] * 50))

    publishers = [threading.Thread(target=publish) for _ in range(2)]
    with ExitStack() as stack:
        for publisher in publishers:
            publisher.start()
            stack.callback(publisher.join)
        stack.callback(stop.set)
        for _ in range(3):
            size = len(stored)
            while len(stored) < size + 5000:
                stop.wait(0.01)
            before = sorted(stored)
            found = [item.position for item in Reader(io.BytesIO(archive(log))).items() if isinstance(item, Record)]
            assert found == sorted(set(found)) and set(before) <= set(found)
    assert set(found) <= set(stored)


@pytest.mark.parametrize("source", ["sqlite", "redis"])
def test_a_part_cannot_follow_one_that_may_hold_what_was_erased_unseen(source: str, new: New, no_grace: None) -> None:
    with closing(opened(new(source))) as log:
        log.append([Event("a", "x"), Event("b", "y")])
        first, since = archive(log), log.bounds().latest
        log.erase("a")
        log.append([Event("b", "z")] * 2)
        whole = archive(log, since, behind=True)
        log.retain(1, 86_400)
        trim_all(log)
        with pytest.raises(BadArchive, match="channels were erased"):
            archive(log, since, behind=True)
        with pytest.raises(BadArchive, match="line 5: channels were erased"):
            load(Reader(io.BytesIO(first + archive(log, since))), None)
        assert load(Reader(io.BytesIO(first + whole)), None).records == 5
        log.append([Event("b", "z")])
        trim_all(log)
        archive(log, log.bounds().latest, behind=True)


@pytest.mark.parametrize("target", ["sqlite", "redis"])
def test_what_one_part_has_and_the_next_one_erases_is_not_imported(target: str, new: New) -> None:
    with closing(opened(new("sqlite"))) as log:
        log.append([Event("a", "secret" * 10), Event("b", "y")] * 700, close=["a"])
        first, since = archive(log), log.bounds().latest
        log.erase("a")
        log.append([Event("a", "again"), Event("b", "z")])
        url = new(target)
        imported(first + archive(log, since, behind=True), url)
        with closing(opened(url)) as other:
            assert content(other) == content(log) and other.closed(["a"]) == {}
            trim_all(other)  # and Redis's stream is rebuilt
        if target == "sqlite":
            assert b"secret" not in Path(url.removeprefix("sqlite:///")).read_bytes()


def test_the_write_ahead_log_of_the_file_that_was_there_does_not_outlive_it(tmp_path: Path, new: New) -> None:
    with closing(opened(new("sqlite"))) as source, closing(opened(f"sqlite:///{tmp_path}/used.db")):
        positions = source.append([Event("a", str(n)) for n in range(500)])
        for end in ("", "-wal", "-upkeep"):  # as after kill -9
            (tmp_path / f"killed.db{end}").write_bytes((tmp_path / f"used.db{end}").read_bytes())
        assert (tmp_path / "killed.db-wal").stat().st_size > 0
        imported(archive(source), f"sqlite:///{tmp_path}/killed.db")
        assert not (tmp_path / "killed.db-wal").exists()
    with closing(opened(f"sqlite:///{tmp_path}/killed.db")) as log:
        assert [record.position for record in log.read(None, 0, LIMIT, BYTES)] == positions


class Meddling:
    """A log with which something happens after each page that is read."""

    def __init__(self, log: Log, meddle: Callable[[], object]) -> None:
        self._log, self._meddle = log, meddle

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def read(self, *args: object) -> list[Record]:
        page = self._log.read(*args)  # type: ignore[arg-type]
        if args[0] is None and args[2] == 1000:
            self._meddle()
        return page


def test_a_channel_that_is_erased_during_an_export_is_not_in_what_is_imported(new: New, place: Place) -> None:
    log = place.open()
    log.append([Event(channel, "secret" if channel == "b" else "x") for channel in ["a", "b", "a"] * 1000], close=["b"])
    erased: list[int] = []
    octets = archive(Meddling(log, lambda: erased or erased.append(log.erase("b").through)))  # type: ignore[arg-type]
    for target in ("sqlite", "redis"):
        url = new(target)
        imported(octets, url)
        with closing(opened(url)) as other:
            assert {record.channel for record in other.read(None, 0, LIMIT, BYTES)} == {"a"}
            assert other.closed(["b"]) == {} and [info.channel for info in other.channels()] == ["a"]
            if target == "sqlite":
                assert b"secret" not in Path(url.removeprefix("sqlite:///")).read_bytes()
        # The next part brings the marker.
        url = new(target)
        imported(octets + archive(log, max(r.position for r in other_records(octets))), url)
        with closing(opened(url)) as other:
            assert [is_erasure(record) for record in other.read(["b"], 0, LIMIT, BYTES)] == [True]
            assert content(other) == content(log)


def other_records(octets: bytes) -> list[Record]:
    return [item for item in Reader(io.BytesIO(octets)).items() if isinstance(item, Record)]


def test_what_is_trimmed_during_an_export_before_it_is_read_is_told(new: New, place: Place) -> None:
    log = place.open()
    positions = log.append([Event("a", "x") for _ in range(3000)])

    def trim() -> None:
        log.retain(500, 86_400)
        trim_all(log)

    octets = archive(Meddling(log, trim))  # type: ignore[arg-type]
    url = new("sqlite")
    loaded = imported(octets, url)
    assert loaded.records == 1500
    with closing(opened(url)) as other:
        check_truth(other, [Record(position, "a", None, None, "x") for position in positions])


@pytest.mark.parametrize("target", ["sqlite", "redis"])
def test_marking_tells_every_cursor_from_before_and_ids_go_on_above_the_mark(target: str, new: New) -> None:
    with closing(opened(new("sqlite"))) as log:
        positions = log.append([Event("a", "1"), Event("a", "2")])
        url, octets = new(target), archive(log)
        later = log.append([Event("a", "after the export")])[0]
        imported(octets, url, tell=True)
        for _ in range(2):  # also after it was closed and opened
            with closing(opened(url)) as other:
                bounds = other.bounds()
                assert bounds.lost == bounds.latest > later and not bounds.complete
                assert [r.position for r in other.read(["a"], 0, LIMIT, BYTES)] == positions
        with closing(opened(url)) as other:
            assert other.append([Event("a", "3")])[0] > bounds.lost


@pytest.mark.parametrize("target", ["sqlite", "redis"])
@pytest.mark.parametrize("what", ["an event", "an end", "an erasure", "something that was trimmed"])
def test_a_log_that_has_ever_held_anything_is_not_imported_into(what: str, target: str, new: New, no_grace: None) -> None:
    url = new(target)
    with closing(opened(url)) as log:
        match what:
            case "an event":
                log.append([Event("a", "x")])
            case "an end":
                log.append([], close=["a"])
            case "an erasure":
                log.erase("a")
            case _:
                log.append([Event("a", "x")] * 3)
                log.retain(1, 0.0001)
                trim_all(log)
        before = content(log)
    with pytest.raises(Occupied, match="holds .* events, through"):
        open_tools(url).check_free()
    with closing(opened(new("sqlite"))) as source, pytest.raises(Occupied):
        imported(archive(source), url)
    with closing(opened(url)) as log:
        assert content(log) == before and log.append([Event("b", "y")])


@pytest.mark.parametrize("target", ["sqlite", "redis"])
def test_an_import_that_fails_leaves_an_empty_log_that_can_be_used(target: str, new: New) -> None:
    with closing(opened(new("sqlite"))) as source:
        source.append([Event("a", str(n)) for n in range(5000)], close=["a"])
        octets = archive(source)
    url = new(target)
    for damaged in (octets[:-1], octets[: len(octets) // 2], octets.replace(b'"data":"4000"', b'"data":"4001"')):
        with pytest.raises(BadArchive):
            imported(damaged, url)
        open_tools(url).check_free()
    assert imported(octets, url).records == 5001
    with closing(opened(url)) as log:
        assert len(log.read(None, 0, LIMIT, BYTES)) == 5001
    assert open_tools(url).receipt() == load(Reader(io.BytesIO(octets)), None).receipt != 0


@pytest.mark.parametrize("target", ["sqlite", "redis"])
def test_notes_of_the_log_that_was_there_stay(target: str, new: New) -> None:
    url = new(target)
    with closing(opened(url)) as log:
        log.put_note("revoked", "bob", "17", 1000)
    with closing(opened(new("sqlite"))) as source:
        source.append([Event("a", "x")])
        source.put_note("revoked", "alice", "18", 1000)
        loaded = imported(archive(source), url)
    assert loaded.notes == [Note("revoked", "alice", "18")]
    with closing(opened(url)) as log:
        assert log.notes("revoked") == {"bob": "17"}


def test_of_two_imports_into_one_redis_one_ends_and_says_why(new: New) -> None:
    url = new("redis")
    record = Record(make_position(1_000_000_000_000), "a", None, None, "x")
    with closing(open_tools(url).loader(force=False)) as first, closing(open_tools(url).loader(force=False)) as second:
        second.add([record])
        with pytest.raises(LogUnavailable, match="another process has begun"):
            first.add([record])
        first.close()
        second.finish(load(Reader(io.BytesIO(empty())), None).marks, tell=False)
    with closing(opened(url)) as log:
        assert log.read(None, 0, LIMIT, BYTES) == [record]


def empty() -> bytes:
    out = io.BytesIO()
    with closing(open_log("memory:", retain_events=10, retain_seconds=10)) as log:
        export(log, out.write)
    return out.getvalue()


def test_nobody_uses_a_redis_log_that_is_half_imported(request: pytest.FixtureRequest, new: New) -> None:
    url = new("redis")
    server = redis_server(request)
    with closing(opened(url)) as running:
        running.append([Event("a", "x")])
        loader = open_tools(url).loader(force=True)
        loader.add([Record(make_position(1_000_000_000_000), "a", None, None, "x")])
        with pytest.raises(LogUnavailable, match="imported or restored") as caught:
            running.append([Event("a", "y")])
        assert caught.value.stored == "no"
        with closing(server.client(db=int(url.rpartition("/")[2]))) as client:
            assert client.hget("{headwater}:meta", "format") == LOADING.encode()
        with closing(opened(url)) as started, pytest.raises(LogUnavailable):  # and a worker that starts now waits
            started.bounds()
        loader.close()
        # The interrupted import is repeated.
        with closing(opened(new("sqlite"))) as source:
            source.append([Event("b", "z")])
            imported(archive(source), url, tell=True, force=True)
        def works() -> bool:
            try:
                return bool(running.append([Event("a", "y")]))
            except LogUnavailable:
                return False

        eventually(works)
        assert [record.channel for record in running.read(None, 0, LIMIT, BYTES)] == ["b", "a"]
