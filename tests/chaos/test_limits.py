"""Files, memory and disk at their limits: open streams go on, new ones recover, acknowledged events stay."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.chaos.fleet import KEY, SETTINGS, Fleet
from tests.chaos.reader import Reader, reckon, stop_all
from tests.chaos.recorder import Recorder
from tests.support.server import Server
from tests.support.wait import eventually

# ── open files ──────────────────────────────────────────────────────────────────────────────────────────


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_streams_go_on_when_no_more_files_can_be_opened_and_new_ones_come_in_when_they_can(stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(1))
    server = fleet.servers[0]
    worker = server.worker_pids()[0]
    readers = fleet.readers(stack, 6, [server.port])
    with fleet.recorder(server.port) as recorder:
        recorder.progress()
        soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (open_files(worker) + 8, hard))
        crowd = [stack.enter_context(Reader(server.port, ("a",))) for _ in range(20)]
        stack.callback(stop_all, crowd)
        eventually(lambda: sum(bool(reader.control) for reader in crowd) >= 3, 10)
        time.sleep(1)  # the others try in vain
        assert any(not reader.control for reader in crowd), "the limit was not reached"
        recorder.progress(40)
        ended = [(reader.reconnects, reader.endings, reader.control[-3:]) for reader in readers if reader.reconnects]
        assert not ended, f"an existing stream ended: {ended}"
        assert server.worker_pids() == [worker], "the worker did not survive"
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
        raised = time.monotonic()
        for reader in crowd:
            reader.wait_connected(15)
        took = time.monotonic() - raised
        recorder.progress()
    note = f"new streams {took:.1f} s after the limit was raised"
    reckon("RLIMIT_NOFILE reached", [*readers, *crowd], recorder.finish(), note=note)
    assert len(server.log_text()) < 200_000, "it fills the disk with complaints"


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────


class MemoryLimit:
    """A cgroup for one server's processes if one can be made; else RLIMIT_AS for its workers."""

    def __init__(self, server: Server, spare: int) -> None:
        self._group: Path | None = None
        for parent, limit in (
            (Path("/sys/fs/cgroup"), "memory.max"),
            (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        ):
            group = parent / f"headwater-test-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                self._group = group
                if not (group / limit).exists():
                    raise FileNotFoundError(f"no memory controller in {parent}")
                for pid in server.pids():
                    (group / "cgroup.procs").write_text(str(pid))
                used = sum(_resident(pid) for pid in server.pids())
                (group / limit).write_text(str(used + spare))
                self.how = f"cgroup {'v2' if limit == 'memory.max' else 'v1'} of {(used + spare) >> 20} MB"
                return
            self.close()
        for pid in server.worker_pids():
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize() + spare
            resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        self.how = f"RLIMIT_AS, {spare >> 20} MB above what it had"

    def close(self) -> None:
        """Remove the group. Its processes must have ended."""
        group, self._group = self._group, None
        if group is not None:
            eventually(lambda: self._removed(group), 5, f"{group} cannot be removed")

    @staticmethod
    def _removed(group: Path) -> bool:
        with contextlib.suppress(OSError):  # busy until the kernel is done with the last process
            group.rmdir()
        return not group.exists()


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_worker_without_memory_costs_its_clients_a_reconnect_at_most(stack: ExitStack) -> None:
    fleet = stack.enter_context(Fleet(2, SSE_REDIS_PREFIX="memory"))
    tight = fleet.servers[0]
    readers = [*fleet.readers(stack, 3, [tight.port]), *fleet.readers(stack, 6)]
    limit = MemoryLimit(tight, 24 << 20)  # one of the batches below is enough, even alone
    stack.callback(limit.close)
    stack.callback(tight.close)
    line = json.dumps({"channel": "hog", "data": "x" * 60_000}).encode() + b"\n"
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/x-ndjson"}
    statuses: list[int] = []

    def hog() -> None:
        """Publish batches of 12 MB, which need several times that while they are parsed."""
        for _ in range(2):
            try:
                statuses.append(tight.request("POST", "/events", line * 200, headers, timeout=20).status)
            except Exception:
                statuses.append(0)

    with fleet.recorder() as recorder:
        recorder.progress()
        before = tight.worker_pids()
        hogs = [threading.Thread(target=hog) for _ in range(3)]
        for thread in hogs:
            thread.start()
        for thread in hogs:
            thread.join(60)
        recorder.progress()
        eventually(lambda: len(tight.worker_pids()) == 1, 10, "no worker any more")
        recorder.progress()
    killed = before != tight.worker_pids()
    assert killed or any(status != 201 for status in statuses), "there was no pressure"
    note = f"{limit.how}; {'the kernel killed the worker' if killed else f'requests refused: {sorted(statuses)}'}"
    reckon("memory pressure", readers, recorder.finish(), note=note)


# ── disk ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_under_sqlite_is_told_to_publishers_and_costs_no_event(small_disk: Path, stack: ExitStack) -> None:
    settings: dict[str, Any] = {**SETTINGS, "SSE_PUBLISH_KEY": None, "SSE_LOG": f"sqlite:///{small_disk}/h.db"}
    filler = small_disk / "filler"
    server = stack.enter_context(Server(WEB_CONCURRENCY=2, **settings))
    readers = [stack.enter_context(Reader(server.port, ["a"])) for _ in range(4)]
    for reader in readers:
        reader.wait_connected()
    with Recorder(server.port, channels=("a",), size=20_000) as recorder:
        recorder.progress(10)
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        eventually(lambda: len([one for one in recorder.attempts if one.status == 503]) >= 10, 10)
        full = time.monotonic()
        assert all(one.retry_after for one in recorder.attempts if one.status == 503)
        eventually(lambda: all(reader.heartbeats(full, full + 60) for reader in readers), 5)
        filler.unlink()
        recorder.progress(10)
    reckon("disk full under SQLite", readers, recorder.finish())
    assert sum(reader.reconnects for reader in readers) == 0
