"""Key files: changes, damage, and the grace period of earlier keys."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sse.auth import keyfile
from sse.auth.decision import BadAuthSetting
from sse.auth.keyfile import CHECK_INTERVAL, MAX_RETIRED, KeyFile


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def next_check(self) -> None:
        self.now += CHECK_INTERVAL


def parse(content: bytes) -> Sequence[str]:
    if b"bad" in content:
        raise ValueError("cannot be parsed")
    return content.decode().split()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("one")
    return path


@pytest.fixture
def watch(path: Path, clock: Clock) -> Callable[..., KeyFile[str]]:
    return lambda grace=0.0: KeyFile("SSE_SOME_FILE", path, parse, grace=grace, clock=clock)


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def overwrite(path: Path, text: str) -> None:
    path.write_text(text)


def swap_link(path: Path, text: str) -> None:
    """As Kubernetes does: swap the symbolic link that the path goes through."""
    data = path.parent / f"..{text}"
    data.write_text(text)
    link = path.parent / "..data_tmp"
    link.symlink_to(data)
    link.replace(path)


@pytest.mark.parametrize("change", [replace, overwrite, swap_link])
def test_a_change_is_noticed_at_the_next_check(
    change: Callable[[Path, str], None], path: Path, clock: Clock, watch: Callable[..., KeyFile[str]]
) -> None:
    keys = watch()
    change(path, "two")
    clock.now += CHECK_INTERVAL - 0.01
    assert keys.entries() == ("one",), "at most one check a second"
    clock.now += 0.01
    assert keys.entries() == ("two",)


def test_a_second_write_within_one_clock_tick_is_noticed(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = path.stat()
    monkeypatch.setattr(os, "stat", lambda name: first)  # the writes are all within one tick of the file system's clock
    keys = watch()
    for text in ("two", "six"):
        path.write_text(text)
        clock.next_check()
        assert keys.entries() == (text,)


def test_an_unchanged_file_is_not_read_again(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def counting(content: bytes) -> Sequence[str]:
        reads.append(content)
        return parse(content)

    monkeypatch.setattr(keyfile, "SETTLED_AFTER", -1.0)
    keys = KeyFile("SSE_SOME_FILE", path, counting, grace=0, clock=clock)
    path.chmod(0o600)  # changes its times, but not its content
    for _ in range(5):
        clock.next_check()
        assert keys.entries() == ("one",)
    monkeypatch.setattr("builtins.open", None)
    for _ in range(5):
        clock.next_check()
        assert keys.entries() == ("one",)
    assert len(reads) == 1


def test_there_is_no_system_call_between_two_checks(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = watch()
    asked: list[object] = []
    real = os.stat

    def counting(name: Path) -> os.stat_result:
        asked.append(name)
        return real(name)

    monkeypatch.setattr(os, "stat", counting)
    for _ in range(1000):
        keys.entries()
    assert asked == []
    clock.next_check()
    for _ in range(1000):
        keys.entries()
    assert 1 <= len(asked) <= 2


def test_earlier_keys_stay_valid_for_the_grace_period_only(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]]
) -> None:
    keys = watch(grace=300.0)
    replace(path, "two")
    clock.next_check()
    assert keys.entries() == ("two", "one")
    clock.now += 299.9
    assert keys.entries() == ("two", "one")
    clock.now += 0.2
    assert keys.entries() == ("two",)


def test_without_a_grace_period_a_removed_key_is_invalid_at_once(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]]
) -> None:
    path.write_text("one two")
    keys = watch()
    replace(path, "two")
    clock.next_check()
    assert keys.entries() == ("two",)


def test_writing_the_same_content_again_is_not_a_rotation(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]]
) -> None:
    keys = watch(grace=300.0)
    replace(path, "one")
    clock.next_check()
    assert keys.entries() == ("one",)


def test_the_number_of_earlier_contents_is_limited(path: Path, clock: Clock, watch: Callable[..., KeyFile[str]]) -> None:
    keys = watch(grace=300.0)
    for number in range(20):
        replace(path, f"key{number}")
        clock.next_check()
        keys.entries()
    assert keys.entries() == tuple(f"key{number}" for number in range(19, 18 - MAX_RETIRED, -1))


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: replace(path, "bad"), id="cannot be parsed"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
        pytest.param(make_pipe, id="a pipe, which would block"),
        pytest.param(lambda path: replace(path, "x" * (keyfile.MAX_FILE_BYTES + 1)), id="far too large"),
    ],
)
def test_an_unusable_file_keeps_the_keys_and_is_reported_once(
    damage: Callable[[Path], object],
    path: Path,
    clock: Clock,
    watch: Callable[..., KeyFile[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = watch()
    damage(path)
    with caplog.at_level(logging.WARNING, "headwater.auth"):
        for _ in range(5):
            clock.next_check()
            assert keys.entries() == ("one",)
    assert len(caplog.records) == 1 and "SSE_SOME_FILE" in caplog.text


def test_a_repaired_file_is_used_again(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]], caplog: pytest.LogCaptureFixture
) -> None:
    keys = watch()
    for damage in ("bad", "bad again"):
        replace(path, damage)
        clock.next_check()
        assert keys.entries() == ("one",)
        replace(path, "two")
        clock.next_check()
        assert keys.entries() == ("two",)
        replace(path, "one")
        clock.next_check()
        assert keys.entries() == ("one",)
    assert caplog.text.count("cannot be used") == 2, "each new problem is reported"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), ("bad", "cannot be parsed")],
    ids=["missing", "cannot be parsed"],
)
def test_at_the_start_an_unusable_file_is_refused(
    content: str | None, reason: str, path: Path, watch: Callable[..., KeyFile[str]]
) -> None:
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadAuthSetting, match=f"SSE_SOME_FILE: {path}: {reason}") as refused:
        watch()
    assert refused.value.setting == "SSE_SOME_FILE"


def test_other_callers_do_not_wait_for_a_check(
    path: Path, clock: Clock, watch: Callable[..., KeyFile[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = watch()
    looking, go_on = threading.Event(), threading.Event()

    def slow(now: float) -> None:
        looking.set()
        assert go_on.wait(10)

    monkeypatch.setattr(keys, "_check", slow)
    clock.next_check()
    looker = threading.Thread(target=keys.entries)
    looker.start()
    try:
        assert looking.wait(10)
        clock.next_check()
        assert keys.entries() == ("one",)
    finally:
        go_on.set()
        looker.join(10)


SLOW_DISK = """
from gevent import monkey
native_sleep = monkey.get_original("time", "sleep")
monkey.patch_all()
import os, sys
from pathlib import Path
import gevent
from sse.auth.keyfile import KeyFile

class Slow(type(Path())):
    def __fspath__(self):
        native_sleep(0.2)
        return super().__fspath__()

now = [0.0]
keys = KeyFile("SSE_SOME_FILE", sys.argv[1], bytes.split, grace=0, clock=lambda: now[0])
keys._path = Slow(sys.argv[1])
now[0] = 9.0
request, turns = gevent.spawn(keys.entries), 0
while not request.ready():
    gevent.sleep(0.01)
    turns += 1
print(turns)
"""


def test_a_slow_disk_does_not_hold_up_the_event_loop(path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", SLOW_DISK, path], capture_output=True, text=True, timeout=60)
    assert int(run.stdout) >= 3, run
