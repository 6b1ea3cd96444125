"""The files of the workers' counters: prometheus_client's multi-process files, in memory, one set for each process.

The gunicorn master creates the directory. When a worker has ended, the master adds its counters to a common file. So a
pod whose workers are replaced for weeks keeps its totals, and has only as many files as workers.

The master must not import prometheus_client, which loads ``ssl``: workers that gevent patches after the fork would
inherit it half-patched. So this module reads and writes the files itself. Their format (prometheus_client/mmap_dict.py)
is an int32 with the bytes in use, 4 bytes of padding, then entries of an int32 key length, the key (JSON), spaces up to
a multiple of 8, and two doubles, value and time stamp, all in native byte order.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from ..signs import board

logger = logging.getLogger("headwater.health")

PREFIX: Final = "headwater-metrics-"
VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

# The kinds whose values outlive their process. The gauges of an ended process have no meaning.
LASTING: Final = ("counter", "histogram", "summary")

_INT: Final = struct.Struct("i")
_VALUE: Final = struct.Struct("dd")


def tag(pid: int) -> str:
    """Return the mark of a process in the names of our files.

    The app's own prometheus metrics may be in the same directory; their names end in ``_<pid>.db``.
    """
    return f"sse-{pid}"


def base() -> Path:
    """Return /dev/shm if it can be written, else the temporary directory."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def allocate(path: Path, size: int) -> None:
    """Create a file and allocate all its bytes. Raises OSError if there is no room.

    Threat: if the file system is full (a container's /dev/shm has 64 MB), writing to a hole in a mapped file raises
    SIGBUS, which kills the process.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)


class Directory:
    """The directory of the counters of one app: the pod's, else one that is made at its first use."""

    def __init__(self) -> None:
        self._own: Path | None = None

    def path(self) -> Path:
        """Return the pod's directory, else the own one. Raises OSError if it cannot be made."""
        if (pods := pod_directory()) is not None:
            return pods
        if self._own is None:
            self._own = make_directory()
        return self._own

    def remove(self) -> None:
        """Remove the own directory."""
        own, self._own = self._own, None
        if own is not None:
            _made[own]()


class _Process:
    """The directory that this process or its master created."""

    directory: Path | None = None
    owner = 0


_process: Final = _Process()

# What removes each directory that this process has made.
_made: Final[dict[Path, Callable[[], None]]] = {}


def pod_directory() -> Path | None:
    """Return the directory of this pod's counters; None if no master has created one."""
    return _process.directory


def share_directory() -> None:
    """Create the pod's directory, in the master before it forks. It is removed when this process ends.

    Sets ``PROMETHEUS_MULTIPROC_DIR`` to it, so that an app's own prometheus metrics are exported, too. If that already
    names a directory, uses it and does not remove it.
    """
    if _process.directory is None:
        try:
            _share_directory()
        except OSError as error:
            _process.directory = None
            logger.warning("no directory for counters, so only workers and processes have metrics: %s", error)


def _share_directory() -> None:
    if named := os.environ.get(VARIABLE):
        _process.directory = Path(named)
        _process.directory.mkdir(parents=True, exist_ok=True)
        # Remove the files of an earlier run, because counters begin at 0. Only files with these names, in case the
        # directory has others; and none if gunicorn is replacing itself (USR2).
        for kind in () if "GUNICORN_PID" in os.environ else (*LASTING, "gauge"):
            for left in _process.directory.glob(f"{kind}_*.db"):
                left.unlink(missing_ok=True)
    else:
        _process.directory = make_directory()
        _process.owner = os.getpid()
        os.environ[VARIABLE] = str(_process.directory)


def remove_directory() -> None:
    """Remove the directory, if this process created it."""
    if _process.directory is not None and _process.owner == os.getpid():
        shutil.rmtree(_process.directory, ignore_errors=True)
        os.environ.pop(VARIABLE, None)
        _process.directory = None


def make_directory() -> Path:
    """Create a directory that is removed when this process ends, and remove those that killed masters left behind.

    Raises OSError if it cannot create one.

    Threat: an emptyDir outlives its containers, and in memory it counts towards the pod's limit, so a pod that crashes
    again and again would fill it. A directory is in use while a process holds the lock of the file in it: the process
    that created it, and every process that this one forked.
    """
    parent = base()
    for left in parent.glob(f"{PREFIX}*"):
        try:
            if left.lstat().st_uid != os.geteuid():
                continue
            with open(left / "lock", "rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # in use, or another process is removing it
    # Rename it only when it is locked, so that no other master takes it for one that was left behind.
    making = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    lock = os.open(making / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory = making.rename(parent / making.name[1:])
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # forked workers inherit this exit handler
            shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
        del _made[directory]
        atexit.unregister(remove)

    atexit.register(remove)
    _made[directory] = remove
    return directory


def read_values(path: Path) -> dict[bytes, tuple[float, float]]:
    """Return the entries of one file: key → (value, time stamp). Raises ValueError for a damaged file, OSError."""
    data = path.read_bytes()
    values: dict[bytes, tuple[float, float]] = {}
    try:
        (used,) = _INT.unpack_from(data, 0)
        at = 8
        while at < used:
            (length,) = _INT.unpack_from(data, at)
            if length <= 0:
                raise ValueError("an entry without a key")
            padded = length + 8 - (length + 4) % 8
            values[data[at + 4 : at + 4 + length]] = _VALUE.unpack_from(data, at + 4 + padded)
            at += 4 + padded + _VALUE.size
    except struct.error as error:
        raise ValueError(f"{path.name} is damaged: {error}") from None
    return values


def write_values(path: Path, values: dict[bytes, tuple[float, float]]) -> None:
    """Replace a file by these entries. A reader sees either the old file or the new one."""
    entries = bytearray()
    for key, value in values.items():
        padding = b" " * (8 - (len(key) + 4) % 8)
        entries += _INT.pack(len(key)) + key + padding + _VALUE.pack(*value)
    new = path.with_suffix(".new")
    try:
        new.write_bytes(_INT.pack(8 + len(entries)) + b"\0" * 4 + bytes(entries))
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def fold(directory: Path, pid: int) -> None:
    """Add the counters of a worker that has ended to those of all that ended before, and drop its gauges."""
    shared = board.shared()
    with nullcontext() if shared is None else shared.folding():  # a scrape at this moment starts again
        _fold(directory, pid)


def _fold(directory: Path, pid: int) -> None:
    for ours, total in ((tag(pid), tag(0)), (str(pid), "0")):
        for kind in LASTING:
            source, target = directory / f"{kind}_{ours}.db", directory / f"{kind}_{total}.db"
            try:
                values = read_values(target) if target.exists() else {}
                for key, (value, _) in read_values(source).items():
                    values[key] = (values.get(key, (0.0, 0.0))[0] + value, 0.0)
                write_values(target, values)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                # SIGKILL interrupted the worker while it created the file. Lose its counts rather than the scrape.
                logger.warning("the counters of worker %d are lost: %s", pid, error)
            source.unlink(missing_ok=True)
        for gauge in directory.glob(f"gauge_live*_{ours}.db"):
            gauge.unlink(missing_ok=True)
