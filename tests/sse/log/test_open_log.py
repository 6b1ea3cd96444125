from __future__ import annotations

from pathlib import Path

import pytest

from sse.log import open_log
from sse.log.memory import MemoryLog
from sse.log.sqlite.engine import SQLiteLog


def open_default(url: str, **options: float) -> object:
    return open_log(url, **{"retain_events": 10, "retain_seconds": 10, **options})  # type: ignore[arg-type]


def test_three_slashes_are_a_path_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = open_default("sqlite:///var/deep er/log%20;#.db")
    assert isinstance(log, SQLiteLog) and log.shared
    monkeypatch.chdir("/")
    log.append([])
    log.close()
    assert (tmp_path / "var/deep er/log%20;#.db").is_file()


def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    log = open_default(f"sqlite:///{tmp_path}/new/log.db")
    assert isinstance(log, SQLiteLog)
    log.close()
    assert (tmp_path / "new/log.db").is_file()


def test_option_is_no_part_of_the_path(tmp_path: Path) -> None:
    log = open_default(f"sqlite:///{tmp_path}/log.db?sync=full")
    assert isinstance(log, SQLiteLog)
    log.close()
    assert (tmp_path / "log.db").is_file() and not list(tmp_path.glob("*sync*"))


def test_memory_is_for_one_process() -> None:
    log = open_default("memory:")
    assert isinstance(log, MemoryLog) and not log.shared


@pytest.mark.parametrize(
    "url",
    [
        "",
        "var/headwater.db",
        "memory",
        "sqlite://",
        "sqlite:///",
        "sqlite:///var/",
        "sqlite:///:memory:",
        "sqlite://host/path",
        "sqlite:///nul\0.db",
        "postgresql://localhost/x",
        "SQLITE:///x.db",
        "sqlite:///x.db?sync=on",
        "sqlite:///x.db?sync=",
        "sqlite:///x.db?sinc=full",
        "memory:?sync=full",
    ],
)
def test_url_of_no_engine_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="must be sqlite:///") as refusal:
        open_default(url)
    assert repr(url) in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "redi://user:s3cret@host:6379/0",
        "redi://:s3cret@host",
        "redi://user:s3@cr/s3cret@host",
        "redi://user:s3cret\n@host",
        "redi:user:s3cret@host",
        "user:s3cret@host",
        "REDI://user:s3cret@host",
        "redi://host/0?password=s3cret&db=1",
        "redi://[s3cret@host",
    ],
)
def test_password_in_a_bad_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="must be sqlite:///") as refusal:
        open_default(url)
    assert "s3" not in str(refusal.value) and "host" in str(refusal.value)


@pytest.mark.parametrize("limits", [{"retain_events": 0}, {"retain_seconds": 0}, {"retain_seconds": -1}])
def test_retention_of_nothing_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        open_default("memory:", **limits)
