"""``headwater log export`` and ``import``: pipes, files that are gone on with, interruptions, and what clients see."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sse.events.model import Event, format_id
from sse.log import Log
from tests.command.run import COMMAND, Running, environment, headwater
from tests.support.publisher import Publishers
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

Open = Callable[[str], Log]
New = Callable[[str], str]
PAIRS = [("sqlite", "redis"), ("redis", "sqlite")]
LIMIT, BYTES = 1_000_000, 1 << 30


def piped(source: str, target: str, *words: str) -> subprocess.CompletedProcess[str]:
    """``headwater log export | headwater log import``, typed into a shell."""
    command = " ".join(COMMAND)
    line = f"set -o pipefail; SSE_LOG={source} {command} log export | SSE_LOG={target} {command} log import {' '.join(words)}"
    return subprocess.run(["bash", "-c", line], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_pipe_moves_a_log_from_one_engine_to_the_other(source: str, target: str, new: New, opened: Open) -> None:
    there, here = new(source), new(target)
    log = opened(there)
    log.append([Event(f"c{n % 50}", f"data {n}", "t" if n % 3 else None, n if n % 7 else None) for n in range(3000)], close=["c7", "x"])
    log.erase("c8")
    done = piped(there, here)
    assert done.returncode == 0, done
    assert [line for line in done.stderr.splitlines() if "events" in line and "appendonly" not in line] == [
        f"headwater: 2,943 events, through {format_id(log.bounds().latest)}",
        "headwater: 2,943 events imported",
        "headwater: clients with a cursor from before now are told that events may be missing (--moved: they are not)",
    ]
    other = opened(here)
    assert other.read(None, 0, LIMIT, BYTES) == log.read(None, 0, LIMIT, BYTES)
    assert other.channels() == log.channels() and other.closed(["c7", "x"]) == log.closed(["c7", "x"])
    assert other.bounds().lost > log.bounds().latest


def test_repeating_an_import_stores_nothing(url: str, new: New, opened: Open, tmp_path: Path) -> None:
    source = opened(new("sqlite"))
    source.append([Event("a", "x")] * 10)
    file = tmp_path / "export"
    assert headwater("log", "export", str(file), SSE_LOG=f"sqlite:///{source._path}").returncode == 0  # type: ignore[attr-defined]
    done = [headwater("log", "import", str(file), SSE_LOG=url) for _ in range(2)]
    assert [one.returncode for one in done] == [0, 0]
    assert done[1].stderr.endswith("headwater: this export is in the log already; nothing was imported\n")
    log = opened(url)
    assert len(log.read(None, 0, LIMIT, BYTES)) == 10
    source.append([Event("a", "y")])
    assert headwater("log", "export", str(file), SSE_LOG=f"sqlite:///{source._path}").returncode == 0  # type: ignore[attr-defined]
    log.append([Event("b", "z")])
    log.close()
    another = headwater("log", "import", str(file), SSE_LOG=url)
    assert another.returncode == 1 and "holds 11 events, through " in another.stderr and "needs an empty log" in another.stderr


def test_a_file_is_gone_on_with_whether_it_was_whole_or_cut_off(url: str, new: New, opened: Open, tmp_path: Path) -> None:
    log = opened(url)
    file = tmp_path / "export"
    for cut in (0, 5, 0, 300, 0):
        log.append([Event("a", "x" * 50, "t", 5) for _ in range(20)])
        done = headwater("log", "export", str(file), SSE_LOG=url)
        assert (done.returncode, done.stdout) == (0, ""), done
        os.truncate(file, file.stat().st_size - cut)
    assert file.stat().st_mode & 0o77 == 0, "for its owner only"
    target = new("sqlite")
    assert headwater("log", "import", str(file), "--moved", SSE_LOG=target).returncode == 0
    assert opened(target).read(None, 0, LIMIT, BYTES) == log.read(None, 0, LIMIT, BYTES)
    refused = headwater("log", "export", str(file), "--since", "earliest", SSE_LOG=url)
    assert refused.returncode == 2 and "without --since" in refused.stderr


def test_since_exports_what_follows(url: str, opened: Open) -> None:
    ids = [format_id(position) for position in opened(url).append([Event("a", str(n)) for n in range(4)])]
    done = headwater("log", "export", "--since", ids[1], SSE_LOG=url)
    head, *records, end = (json.loads(line) for line in done.stdout.splitlines())
    assert [record["id"] for record in records] == ids[2:] and head["since"] == ids[1] and end["end"] == ids[3]


def test_an_export_that_cannot_be_gone_on_with_is_left_as_it_is(url: str, opened: Open, tmp_path: Path) -> None:
    opened(url).append([Event("a", "x")])
    file = tmp_path / "notes.txt"
    for text in ("something else\n", '{"headwater":"log","format":9}\n'):
        file.write_text(text)
        done = headwater("log", "export", str(file), SSE_LOG=url)
        assert done.returncode == 1 and done.stderr.startswith(f"headwater: {file}: line 1") and file.read_text() == text


@pytest.mark.parametrize("target", ["sqlite", "redis"])
def test_an_import_that_was_killed_is_repeated_and_stores_nothing_twice(target: str, new: New, opened: Open, tmp_path: Path) -> None:
    there, here = new("sqlite"), new(target)
    log = opened(there)
    log.append([Event("a", f"{n} {'x' * 100}") for n in range(20_000)])
    octets = headwater("log", "export", SSE_LOG=there).stdout.encode()
    for number in (signal.SIGKILL, signal.SIGINT):
        with Running(tmp_path, "log", "import", SSE_LOG=here) as running:
            running.stdin.write(octets[: len(octets) // 2])
            running.stdin.flush()  # what the pipe did not hold has been read
            running.signal(number)
            assert running.wait() == (130 if number == signal.SIGINT else -signal.SIGKILL)
            if number == signal.SIGKILL:
                done = headwater("publish", "a", "y", "--timeout", "0", SSE_LOG=here)
                if target == "redis":  # nobody writes between its events
                    assert done.returncode == 1 and "being imported or restored" in done.stderr
                else:
                    assert done.returncode == 0
                    Path(here.removeprefix("sqlite:///")).unlink()
    assert "nothing was imported" in running.told
    done = headwater("log", "import", stdin=octets, SSE_LOG=here)
    assert done.returncode == 0, done
    assert opened(here).read(None, 0, LIMIT, BYTES) == log.read(None, 0, LIMIT, BYTES)
    assert [path.name for path in tmp_path.iterdir() if "-new" in path.name] == []


def test_an_export_that_was_cut_off_is_not_imported(url: str, new: New, opened: Open) -> None:
    there = new("sqlite")
    opened(there).append([Event("a", "x")] * 100)
    octets = headwater("log", "export", SSE_LOG=there).stdout
    for cut, said in ((5, "line 102 ends in the middle"), (200, "the export has no end: it was interrupted, or cut off")):
        end = octets.rindex("\n", 0, -cut) + 1 if cut == 200 else -cut
        done = headwater("log", "import", stdin=octets[:end], SSE_LOG=url)
        assert done.returncode == 1 and f"headwater: standard input: {said}; nothing was imported\n" in done.stderr
    assert opened(url).read(None, 0, LIMIT, BYTES) == []


def test_a_large_log_takes_little_memory(new: New, opened: Open) -> None:
    """A hundred megabytes pass through two processes that each have less than half of that beside the program."""
    there, here = new("sqlite"), new("sqlite")
    log = opened(there)
    for _ in range(100):
        log.append([Event("a", "x" * 10_000) for _ in range(100)])
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert headwater("log", "channels", SSE_LOG=there).returncode == 0
    idle = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert piped(there, here).returncode == 0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(idle, before) + 45_000  # KiB
    assert len(opened(here).read(None, 0, LIMIT, BYTES)) == 10_000


def test_progress_is_shown_on_a_terminal(new: New, opened: Open, tmp_path: Path) -> None:
    url = new("sqlite")
    log = opened(url)
    for _ in range(5):
        log.append([Event("a", "x" * 100) for _ in range(4000)])
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "log", "export", str(tmp_path / "e")], env=environment(SSE_LOG=url), cwd=ROOT, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 1000):
                shown += piece
        except OSError:  # it has ended
            pass
        assert running.wait(20) == 0
    os.close(ours)
    assert re.search(rb"\rexporting: 1,000 events, \d+%", shown.replace(b"\x1b[K", b""))
    assert b"\r\x1b[Kheadwater: 20,000 events, through" in shown, "and the line is cleared"


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_log_in_use_is_exported_whole_and_not_imported_into(kind: str, new: New, redis: RedisServer) -> None:
    url = new(kind)
    with Server(SSE_LOG=url, WEB_CONCURRENCY=2, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as server:
        if kind == "redis":  # within a second, one of its workers claims the upkeep
            with closing(redis.client(db=int(url.rpartition("/")[2]))) as client:
                eventually(lambda: client.exists("{headwater}:trim"))
        refused = headwater("log", "import", stdin=headwater("log", "export", SSE_LOG=url).stdout, SSE_LOG=url)
        assert refused.returncode == 1 and "is in use: stop the service" in refused.stderr, refused
        with Publishers(server.port, 3, channels=("a", "b", "c")) as publishers:
            publishers.wait_progress()
            lower = publishers.count()
            octets = headwater("log", "export", SSE_LOG=url).stdout
            publishers.wait_progress(1000)
            stored = publishers.stop()
        exported = [json.loads(line) for line in octets.splitlines()[1:-1]]
        assert [record["id"] for record in exported] == [entry.id for entry in stored][: len(exported)]
        assert sum(len(f"{e.id} {e.channel}  {e.data} {e.at}\n") for e in stored[: len(exported)]) >= lower * 0.9


@pytest.mark.parametrize("target", ["sqlite", "redis"])
@pytest.mark.parametrize("moved", [True, False])
def test_clients_of_a_log_that_moved_go_on_and_others_are_told(moved: bool, target: str, new: New, redis: RedisServer) -> None:
    there, here = new("sqlite"), new(target)
    with Server(SSE_LOG=there, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as server:
        first, second = server.publish("a", "1"), server.publish("a", "2")
        server.terminate()
        server.wait()
        done = piped(there, here, *["--moved"] * moved)
        assert done.returncode == 0, done
        server.env["SSE_LOG"] = here
        server.start()
        third = server.publish("a", "3")
        with SSEClient(server.port, "/events/a", last_event_id=first) as client:
            told = client.events_until(lambda event: event.data == "3")
            resets = [json.loads(event.data)["reason"] for event in told if event.event == "stream-reset"]
            assert resets == ([] if moved else ["expired"])
            assert [event.id for event in told if not event.is_control] == [second, third]
        newest = server.publish("a", "4")
        with SSEClient(server.port, "/events/a", last_event_id=third) as client:
            told = client.events_until(lambda event: event.data == "4")
            assert [event.id for event in told if not event.is_control] == [newest]
            assert "stream-reset" not in [event.event for event in told]


def test_revoked_subjects_stay_revoked(url: str, new: New, opened: Open) -> None:
    there = new("sqlite")
    opened(there).put_note("revoked", "alice", "1763900000000", 1000)
    assert piped(there, url).returncode == 0
    assert opened(url).notes("revoked") == {"alice": "1763900000000"}


def test_a_backup_of_somebody_elses_is_not_a_log(tmp_path: Path) -> None:
    other = tmp_path / "h.db"
    other.write_text("notes")
    done = headwater("log", "import", stdin="", SSE_LOG=f"sqlite:///{other}")
    assert done.returncode == 1 and done.stderr == f"headwater: {other}: is not a SQLite file\n" and other.read_text() == "notes"


def test_memory_cannot_be_reached() -> None:
    for words in (("export",), ("import",)):
        done = headwater("log", *words, SSE_LOG="memory:")
        assert done.returncode == 1 and "memory:" in done.stderr
