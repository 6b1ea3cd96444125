"""A file system on a disk that drops what was not flushed, and what is found there after a power cut."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.power.device import NAME, Record, records
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.server import ROOT
from tests.support.wait import eventually

_SIZE: Final = 48 * 1024 * 1024
_SECTOR: Final = 512  # what a disk writes whole, or not at all


class Disk:
    """The disk, mounted at ``path`` while the context of :func:`power_disk` lasts; after it, the cuts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._image = folder / "image"
        self.journal = folder / "journal"
        self._records: list[Record] = []

    def cuts(self, number: int, since: int, until: int, seed: int) -> Iterator[Cut]:
        """Yield power cuts at random moments between these, in ns of ``time.monotonic_ns``."""
        if not self._records:
            self._records = list(records(self.journal))
        flushes = [record.at for record in self._records if record.data is None and since < record.at < until]
        chance = random.Random(seed)
        for n in range(number):
            # Every other one just before a flush, when the most is at stake.
            at = chance.choice(flushes) if n % 2 and flushes else chance.randrange(since, until)
            yield Cut(self._image, self._records, at, chance)


class Cut:
    """A power cut at a moment, ``at``. flushed, unflushed: the writes before it, of both kinds."""

    def __init__(self, image: Path, every: list[Record], at: int, chance: random.Random) -> None:
        self.at = at
        index = bisect_left(every, at, key=lambda record: record.at)
        flush = next((n for n in range(index - 1, -1, -1) if every[n].data is None), 0)
        self._image = image
        self.flushed = [record for record in every[:flush] if record.data is not None]
        self.unflushed = [record for record in every[flush:index] if record.data is not None]
        self._chance = chance

    def content(self) -> bytearray:
        """Return what the disk has: all that was flushed, and of the rest any sectors, in any order."""
        content = bytearray(self._image.read_bytes())
        for record in self.flushed:
            assert record.data is not None
            content[record.offset : record.offset + len(record.data)] = record.data
        share = self._chance.choice((0.0, 0.3, 0.7, 1.0))  # of the writes that reached the disk
        for record in self.unflushed:
            assert record.data is not None
            whole = self._chance.random() < share
            torn = self._chance.random() < 0.3
            for begin in range(0, len(record.data), _SECTOR):
                if self._chance.random() < 0.5 if torn else whole:
                    sector = record.data[begin : begin + _SECTOR]
                    content[record.offset + begin : record.offset + begin + len(sector)] = sector
        return content

    @contextlib.contextmanager
    def mounted(self, folder: Path) -> Iterator[Path]:
        """Mount what the disk has, as the machine does when the power is back: ext4 recovers from its journal."""
        image, path = folder / "after", folder / "found"
        image.write_bytes(self.content())
        path.mkdir(exist_ok=True)
        _run("mount", "-o", "loop", image, path)
        try:
            yield path
        finally:
            _unmount(path)
            image.unlink()


@contextlib.contextmanager
def power_disk(folder: Path) -> Iterator[Disk]:
    """Mount an ext4 on such a disk at ``folder``. Skips the test where that is not possible."""
    _require()
    disk = Disk(folder)
    mountpoint = folder / "device"
    for path in (mountpoint, disk.path):
        path.mkdir()
    disk._image.touch()
    os.truncate(disk._image, _SIZE)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4", disk._image)
    command = [sys.executable, "-m", "tests.power.device", *map(str, (disk._image, mountpoint, disk.journal))]
    with contextlib.ExitStack() as ends:
        device = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
        reaper.watch(device.pid)
        ends.callback(_end, device)
        file = mountpoint / NAME
        eventually(lambda: os.path.ismount(mountpoint) or device.poll() is not None, 10)
        if device.poll() is not None:
            _missing(f"no FUSE here: {_last(device)}")
        ends.callback(_run, "umount", "-l", mountpoint)
        loop = _run("losetup", "--find", "--show", file).strip()
        ends.callback(_run, "losetup", "--detach", loop)
        _run("mount", loop, disk.path)
        ends.callback(_unmount, disk.path)
        yield disk


def _unmount(path: Path) -> None:
    """Unmount once the processes that were killed there have gone."""
    eventually(lambda: subprocess.run(["umount", path], capture_output=True, check=False).returncode == 0, 20)


def _end(device: subprocess.Popen[str]) -> None:
    try:
        device.wait(10)
    except subprocess.TimeoutExpired:
        device.kill()
        device.wait(10)
    reaper.release(device.pid)
    if device.stderr is not None:
        device.stderr.close()


def _last(device: subprocess.Popen[str]) -> str:
    assert device.stderr is not None
    return (device.stderr.read().strip().splitlines() or ["no output"])[-1]


def _require() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    for program, package in (("mkfs.ext4", "e2fsprogs"), ("losetup", "mount"), ("mount", "mount")):
        require_program(program, package)
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        _missing("this kernel has no FUSE or no loop devices")


def _missing(reason: str) -> None:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.strip()}"
    return done.stdout
