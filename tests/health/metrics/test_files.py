from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from prometheus_client import mmap_dict

from health import Health
from health.metrics import files as metrics_files
from health.metrics.files import read_values, write_values

MmapedDict: Any = mmap_dict.MmapedDict  # it has no annotations
ROOT = Path(__file__).parents[3]


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(metrics_files, "base", lambda: tmp_path)
    monkeypatch.delenv(metrics_files.VARIABLE, raising=False)
    monkeypatch.setattr(metrics_files._process, "directory", None)
    yield tmp_path
    metrics_files.remove_directory()


@pytest.mark.parametrize("length", range(1, 20))
def test_prometheus_client_and_we_read_each_others_files(tmp_path: Path, length: int) -> None:
    written = {b"k" * length: (1.5, 0.0), b"\xc3\xa9" * length: (2.0, 7.0)}
    write_values(tmp_path / "ours.db", written)
    theirs = {
        key.encode(): (value, stamp)
        for key, value, stamp, _ in MmapedDict.read_all_values_from_file(str(tmp_path / "ours.db"))
    }
    assert {key.rstrip(): value for key, value in theirs.items()} == written

    file = MmapedDict(str(tmp_path / "theirs.db"))
    for key, (value, stamp) in written.items():
        file.write_value(key.decode(), value, stamp)
    file.close()
    assert read_values(tmp_path / "theirs.db") == written


PROGRAM = """
import os, signal, sys
from pathlib import Path
from typing import Any
from health.metrics import files as metrics_files
metrics_files.base = lambda: Path(sys.argv[1])
metrics_files.share_directory()
child = os.fork()
if child == 0:
    sys.exit(0)          # a worker's end: runs the exit handlers that it inherited
os.waitpid(child, 0)
directory = metrics_files.pod_directory()
assert directory.is_dir(), "a worker removed its master's directory"
print(directory, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "hook":
    metrics_files.remove_directory()
"""


def run(parent: Path, end: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(parent), end]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("end", ["exit", "hook"])
def test_the_directory_is_removed_when_the_master_ends_and_not_when_a_worker_does(parent: Path, end: str) -> None:
    done = run(parent, end)
    assert done.returncode == 0, done.stderr
    assert list(parent.iterdir()) == []


def test_a_new_master_removes_what_a_killed_one_left_but_nothing_in_use(parent: Path) -> None:
    assert run(parent, "killed").returncode == -signal.SIGKILL
    (left,) = parent.iterdir()
    ours = metrics_files.make_directory()
    other = metrics_files.make_directory()
    assert not left.exists()
    assert ours.is_dir()
    assert {path.name for path in parent.iterdir()} == {ours.name, other.name}


def test_a_directory_that_the_environment_names_is_used_and_not_removed(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = parent / "named"
    named.mkdir()
    for name in ("counter_77.db", "gauge_livesum_sse-77.db", "headwater.db", "notes"):
        (named / name).write_text("x")
    monkeypatch.setenv(metrics_files.VARIABLE, str(named))
    metrics_files.share_directory()
    assert metrics_files.pod_directory() == named
    assert {path.name for path in named.iterdir()} == {"headwater.db", "notes"}, "only an earlier run's metrics are removed"
    metrics_files.remove_directory()
    assert named.is_dir()


def test_a_master_that_replaces_another_leaves_the_other_s_files(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (parent / "counter_77.db").write_text("x")
    monkeypatch.setenv(metrics_files.VARIABLE, str(parent))
    monkeypatch.setenv("GUNICORN_PID", "1")
    metrics_files.share_directory()
    assert (parent / "counter_77.db").exists()


def test_a_file_that_cannot_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        raise OSError(28, "No space left on device")

    write_values(tmp_path / "a.db", {b"k": (1.0, 0.0)})
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_values(tmp_path / "a.db", {b"k": (2.0, 0.0)})
    assert read_values(tmp_path / "a.db") == {b"k": (1.0, 0.0)}
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_a_master_that_cannot_create_the_directory_starts_without_counters(
    parent: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics_files, "base", lambda: parent / "nowhere")
    metrics_files.share_directory()
    assert metrics_files.pod_directory() is None and metrics_files.VARIABLE not in os.environ
    assert [record.getMessage()[:25] for record in caplog.records] == ["no directory for counters"]
    health = Health(flask.Flask("files")).current
    try:
        assert "health_workers_expected" in health.metrics()[1].decode(), "metrics that need no file are exported"
    finally:
        health.stop()


def test_the_variable_names_the_directory_for_an_apps_own_metrics(parent: Path) -> None:
    metrics_files.share_directory()
    assert Path(os.environ[metrics_files.VARIABLE]) == metrics_files.pod_directory()
    metrics_files.remove_directory()
    assert metrics_files.VARIABLE not in os.environ


def test_the_hooks_import_neither_flask_nor_ssl() -> None:
    """A worker that gevent patches after the fork would have half of each module patched."""
    code = (
        "import sys, health.hooks\n"
        "print([name for name in ('ssl', 'flask', 'gevent', 'asyncio', 'prometheus_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n", done.stderr
