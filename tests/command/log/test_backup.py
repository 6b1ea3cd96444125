"""``headwater log backup`` and ``restore``: under load, over what is there, and what clients see."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sse.events.model import Event, format_id
from sse.log import Log
from tests.command.run import COMMAND, Running, environment, headwater
from tests.support.ledger import position
from tests.support.publisher import Publishers
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

Open = Callable[[str], Log]
New = Callable[[str], str]
LIMIT, BYTES = 1_000_000, 1 << 30
KINDS = ["sqlite", "redis"]


def service(url: str, **env: str | float) -> Server:
    return Server(SSE_LOG=url, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0, SSE_RETRY=50, **env)


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def done(*words: str | Path, **env: str) -> str:
    """Run a command that must succeed; return what it said."""
    ran = headwater("log", *map(str, words), **env)
    assert ran.returncode == 0, ran
    return ran.stderr


def refused(*words: str | Path, **env: str) -> str:
    """Run a command that must fail; return what it said."""
    ran = headwater("log", *map(str, words), **env)
    assert (ran.returncode, ran.stdout) == (1, ""), ran
    return ran.stderr


def test_a_backup_restores_the_log_with_all_that_it_knew(url: str, new: New, opened: Open, tmp_path: Path) -> None:
    log = opened(url)
    key = dict(key="k", digest=b"1")
    log.append([Event(f"c{n % 40}", f"data {n}\r\n", "t" if n % 3 else None, n) for n in range(2500)], close=["c7", "x"], **key)
    log.erase("c8")
    log.put_note("revoked", "alice", "1763900000000", 1000)
    backup = tmp_path / "backup"
    said = done("backup", backup, SSE_LOG=url)
    assert f"headwater: 2,440 events in {backup}, {backup.stat().st_size:,} bytes\n" in said
    assert backup.stat().st_mode & 0o77 == 0, "for its owner only"
    there = new("sqlite" if url.startswith("sqlite") else "redis")
    assert "headwater: 2,440 events restored" in done("restore", backup, SSE_LOG=there)
    other = opened(there)
    assert other.read(None, 0, LIMIT, BYTES) == log.read(None, 0, LIMIT, BYTES)
    assert other.channels() == log.channels() and other.closed(["c7", "x"]) == log.closed(["c7", "x"])
    assert other.notes("revoked") == {"alice": "1763900000000"}
    assert other.bounds().lost > log.bounds().latest
    if url.startswith("sqlite"):  # an export has no keys
        assert len(other.append([Event("c1", "x")], **key)) == 2502


def test_a_backup_under_load_has_all_that_was_acknowledged_before_it_and_disturbs_nobody(url: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with service(url, WEB_CONCURRENCY=2) as server, Publishers(server.port, 3, channels=("a", "b", "c")) as publishers:
        for n in range(3):
            publishers.wait_progress()
            before = server.publish("d", str(n))
            done("backup", backup, "--force", SSE_LOG=url)
            publishers.wait_progress(1000)
        stored = publishers.stop()
        assert '"status": 503' not in server.log_text()
        ids = [entry.id for entry in stored]
    copy = f"sqlite:///{tmp_path}/copy.db"
    done("restore", backup, SSE_LOG=copy)
    lines = headwater("log", "export", SSE_LOG=copy).stdout.splitlines()[1:-1]
    found = [json.loads(line)["id"] for line in lines if '"channel":"d"' not in line]
    assert found == ids[: len(found)], "a prefix of what was stored"
    assert any(f'"id":"{before}"' in line for line in lines)
    assert position(found[-1]) > position(before) or ids.index(found[-1]) >= max(n for n, one in enumerate(ids) if position(one) < position(before))


@pytest.mark.parametrize("cut", ["nothing", "its tail", "a page in its middle", "all of it"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(cut: str, url: str, opened: Open, tmp_path: Path) -> None:
    log = opened(url)
    log.append([Event("a", "x" * 3000) for _ in range(200)])
    backup = tmp_path / "backup"
    done("backup", backup, SSE_LOG=url)
    log.append([Event("a", "after")])
    before = log.read(None, 0, LIMIT, BYTES)
    octets = backup.read_bytes()
    match cut:
        case "its tail":
            backup.write_bytes(octets[: len(octets) // 2])
        case "a page in its middle":
            middle = len(octets) // 2 // 4096 * 4096
            backup.write_bytes(octets[:middle] + b"\x55" * 4096 + octets[middle + 4096 :])
        case "all of it":
            backup.write_bytes(b"")
        case _:
            backup.unlink()
            ran = headwater("log", "restore", str(backup), "--force", SSE_LOG=url)
            assert ran.returncode == 2 and "does not exist" in ran.stderr
            return
    said = refused("restore", backup, "--force", SSE_LOG=url).splitlines()[-1]
    assert said.startswith(f"headwater: {backup}: "), said
    assert log.read(None, 0, LIMIT, BYTES) == before and log.append([Event("b", "y")])


def test_what_is_there_is_not_replaced_without_force(url: str, opened: Open, tmp_path: Path) -> None:
    log = opened(url)
    positions = log.append([Event("a", "1"), Event("a", "2")])
    backup = tmp_path / "backup"
    done("backup", backup, SSE_LOG=url)
    assert refused("backup", backup, SSE_LOG=url) == f"headwater: {backup} is there: --force replaces it\n"
    positions += log.append([Event("a", "3")])
    log.close()
    said = refused("restore", backup, SSE_LOG=url)
    assert f"holds 3 events, through {format_id(positions[2])} (--force replaces what it holds)\n" in said
    done("restore", backup, "--force", SSE_LOG=url)
    other = opened(url)
    assert [record.data for record in other.read(None, 0, LIMIT, BYTES)] == ["1", "2"]
    assert other.append([Event("a", "4")])[0] > other.bounds().lost > positions[2]


def test_a_log_in_use_is_not_replaced_without_force_even_if_it_is_empty(url: str, tmp_path: Path, new: New, redis: RedisServer) -> None:
    backup = tmp_path / "backup"
    there = new("sqlite" if url.startswith("sqlite") else "redis")
    headwater("publish", "a", "x", SSE_LOG=there)
    done("backup", backup, SSE_LOG=there)
    with service(url):
        if url.startswith("redis"):  # within a second, one of its workers claims the upkeep
            with closing(redis.client(db=int(url.rpartition("/")[2]))) as client:
                eventually(lambda: client.exists("{headwater}:trim"))
        assert "is in use: stop the service" in refused("restore", backup, SSE_LOG=url)
    done("restore", backup, SSE_LOG=url)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_running_service_notices_a_forced_restore_and_tells_its_clients(workers: int, url: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with service(url, WEB_CONCURRENCY=workers) as server:
        before = server.publish("a", "kept")
        done("backup", backup, SSE_LOG=url)
        after = server.publish("a", "gone")
        with SSEClient(server.port, "/events/a", last_event_id=after) as live:
            live.next_event()
            done("restore", backup, "--force", SSE_LOG=url)
            live.read_to_end(15)  # the stream ends, and the browser comes back
        newest = eventually(lambda: answered(server), 15)
        for cursor in (before, after):

            def told(cursor: str = cursor) -> list[str]:
                with SSEClient(server.port, "/events/a", last_event_id=cursor) as client:
                    events = client.events_until(lambda event: event.data == "new")
                assert events[-1].id == newest and "gone" not in [event.data for event in events]
                return [json.loads(event.data)["reason"] for event in events if event.event == "stream-reset"]

            # (With two workers, the other one may need a second to notice.)
            eventually(lambda told=told: told() == ["expired"], 10)
        with SSEClient(server.port, "/events/a?since=earliest") as client:
            events = client.events_until(lambda event: event.data == "new")
            assert [event.data for event in events if not event.is_control] == ["kept", "new"]
        assert position(newest) > position(after)


def answered(server: Server) -> str | None:
    answer = server.request("POST", "/events/a", "new")
    return str(answer.json()["id"]) if answer.status == 201 else None


@pytest.mark.parametrize("kind", KINDS)
def test_clients_of_a_service_that_was_stopped_for_a_restore_are_told(kind: str, new: New, tmp_path: Path) -> None:
    url, backup = new(kind), tmp_path / "backup"
    with service(url) as server:
        before = server.publish("a", "before")
        done("backup", backup, SSE_LOG=url)
        key = {"Idempotency-Key": "k1"}
        after = server.request("POST", "/events/a", "after", key).json()["id"]
        server.terminate()
        server.wait()
        done("restore", backup, "--force", SSE_LOG=url)
        server.start()
        # Its event is gone, so a repeated request stores it again.
        again = server.request("POST", "/events/a", "after", key).json()["id"]
        assert position(again) > position(after)
        for cursor in (before, after):
            with SSEClient(server.port, "/events/a", last_event_id=cursor) as client:
                told = client.events_until(lambda event: event.data == "after")
                (reset,) = [event for event in told if event.event == "stream-reset"]
                assert json.loads(reset.data)["reason"] == "expired" and told[-1].id == again
        server.restart()
        with SSEClient(server.port, "/events/a", last_event_id=again) as client:
            server.publish("a", "last")
            told = client.events_until(lambda event: event.data == "last")
            assert "stream-reset" not in [event.event for event in told]


# ── SQLite's own ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sqlite(new: New, opened: Open) -> tuple[str, Log]:
    url = new("sqlite")
    log = opened(url)
    log.append([Event("a", f"{n} {'x' * 500}") for n in range(5000)])
    return url, log


def test_a_backup_has_no_byte_of_what_was_erased(sqlite: tuple[str, Log], tmp_path: Path) -> None:
    url, log = sqlite
    log.append([Event("b", "secret")] * 1000)
    log.erase("b")
    with closing(sqlite3.connect(path_of(url))) as database:  # as if the process that erases had been killed
        database.execute("CREATE TABLE rewritten (position INTEGER PRIMARY KEY, channel TEXT, event TEXT, retry INTEGER, data TEXT)")
        database.execute("INSERT INTO rewritten VALUES (1, 'b', NULL, NULL, 'secret')")
        database.commit()
    done("backup", tmp_path / "backup", SSE_LOG=url)
    assert b"secret" not in (tmp_path / "backup").read_bytes()


def test_a_backup_of_an_older_programs_log_is_restored(new: New, opened: Open, tmp_path: Path) -> None:
    """Also one that was made with SQLite's own tools, and is in WAL mode."""
    url = new("sqlite")
    log = opened(url)
    positions = log.append([Event("a", "1"), Event("b", "2")])
    log.close()
    backup = tmp_path / "backup.db"
    shutil.copy(path_of(url), backup)
    with closing(sqlite3.connect(backup)) as database:
        for table in ("traces", "closed", "channels", "notes"):
            database.execute(f"DROP TABLE {table}")
        database.execute("DELETE FROM meta WHERE name NOT IN ('trimmed', 'removed', 'checkpoints')")
        database.commit()
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    backup.chmod(0o400)
    done("restore", backup, "--force", SSE_LOG=url)
    restored = opened(url)
    assert [record.position for record in restored.read(None, 0, LIMIT, BYTES)] == positions
    assert [info.channel for info in restored.channels()] == ["a", "b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_restored_file_belongs_to_whom_the_old_one_did(sqlite: tuple[str, Log], tmp_path: Path) -> None:
    url, log = sqlite
    log.close()
    done("backup", tmp_path / "backup", SSE_LOG=url)
    os.chown(path_of(url), 10001, 10002)
    path_of(url).chmod(0o640)
    (path_of(url).with_name(path_of(url).name + "-upkeep")).unlink()
    done("restore", tmp_path / "backup", "--force", SSE_LOG=url)
    for name in ("", "-upkeep"):
        found = path_of(url).with_name(path_of(url).name + name).stat()
        assert (found.st_uid, found.st_gid) == (10001, 10002), name
    assert path_of(url).stat().st_mode & 0o777 == 0o640
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, 10001, 10001)
    done("restore", tmp_path / "backup", SSE_LOG=f"sqlite:///{folder}/h.db")
    assert {path.stat().st_uid for path in folder.iterdir()} == {10001}


def test_a_damaged_log_is_replaced_only_by_force(sqlite: tuple[str, Log], tmp_path: Path) -> None:
    url, log = sqlite
    done("backup", tmp_path / "backup", SSE_LOG=url)
    log.close()
    file = path_of(url)
    octets = bytearray(file.read_bytes())
    octets[4096 : len(octets) // 2] = b"\x55" * (len(octets) // 2 - 4096)
    file.write_bytes(octets)
    assert "is damaged, or of another version" in refused("restore", tmp_path / "backup", SSE_LOG=url)
    done("restore", tmp_path / "backup", "--force", SSE_LOG=url)
    assert len(headwater("log", "export", SSE_LOG=url).stdout.splitlines()) == 5002


def test_what_is_no_log_is_never_replaced(sqlite: tuple[str, Log], tmp_path: Path, new: New) -> None:
    url, _ = sqlite
    backup, other = tmp_path / "backup", tmp_path / "other.db"
    done("backup", backup, SSE_LOG=url)
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE mine (a)")
        database.commit()
    before = other.read_bytes()
    assert "is another program's SQLite database" in refused("restore", backup, "--force", SSE_LOG=f"sqlite:///{other}")
    assert other.read_bytes() == before
    (tmp_path / "link.db").symlink_to(path_of(url))
    assert "is a link" in refused("restore", backup, "--force", SSE_LOG=f"sqlite:///{tmp_path}/link.db")
    assert "is the log itself" in refused("backup", path_of(url), "--force", SSE_LOG=url)
    assert "is the log itself" in refused("restore", path_of(url), "--force", SSE_LOG=url)
    assert "is a SQLite file" in refused("restore", backup, SSE_LOG=new("redis"))


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_one_that_is_killed_leaves_all_as_it_was_and_can_be_repeated(command: str, sqlite: tuple[str, Log], tmp_path: Path) -> None:
    url, log = sqlite
    backup = tmp_path / "backup"
    done("backup", backup, SSE_LOG=url)
    log.append([Event("b", "after")])
    log.close()
    target = backup if command == "backup" else path_of(url)
    before = target.read_bytes()
    new_file = target.with_name(target.name + "-new")
    with subprocess.Popen([*COMMAND, "log", command, str(backup), "--force"], env=environment(SSE_LOG=url), cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        try:
            eventually(lambda: new_file.exists() or running.poll() is not None, 20, interval=0.0001)
            running.send_signal(signal.SIGSTOP)
            if running.poll() is None and new_file.exists():
                assert target.read_bytes() == before
                # Another one must not get in its way.
                assert "another process builds a log there" in refused(command, backup, "--force", SSE_LOG=url)
        finally:
            running.kill()
    done(command, backup, "--force", SSE_LOG=url)
    assert not new_file.exists()
    lines = headwater("log", "export", SSE_LOG=url).stdout.splitlines()
    assert len(lines) - 2 == (5001 if command == "backup" else 5000)


def test_publishers_wait_for_a_forced_restore_and_lose_nothing_that_is_acknowledged_after_it(sqlite: tuple[str, Log], tmp_path: Path) -> None:
    url, log = sqlite
    backup = tmp_path / "backup"
    done("backup", backup, SSE_LOG=url)
    stop, stored = threading.Event(), []

    def publish() -> None:
        while not stop.wait(0.001):
            stored.append(log.append([Event("b", "x")])[0])

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        eventually(lambda: len(stored) > 20)
        done("restore", backup, "--force", SSE_LOG=url)
        size = len(stored)
        eventually(lambda: len(stored) > size + 20)
    finally:
        stop.set()
        publisher.join()
    held = [record.position for record in log.read(["b"], 0, LIMIT, BYTES)]
    assert held == stored[-len(held) :] and len(held) >= 20
    assert len(log.read(["a"], 0, LIMIT, BYTES)) == 5000
    assert list(Path(tmp_path).glob("*-new*")) == []


def test_ctrl_c_says_that_there_is_no_backup(tmp_path: Path, sqlite: tuple[str, Log]) -> None:
    url, log = sqlite
    for _ in range(10):
        log.append([Event("a", "x" * 900) for _ in range(5000)])
    with Running(tmp_path, "log", "backup", str(tmp_path / "backup"), SSE_LOG=url) as running:
        eventually(lambda: (tmp_path / "backup-new").exists(), 20, interval=0.001)
        running.interrupt()
        if running.wait() == 130:
            assert running.told == "headwater: interrupted; there is no backup\n"
            assert not (tmp_path / "backup").exists() and not (tmp_path / "backup-new").exists()
