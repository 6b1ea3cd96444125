"""The files of the workers' counters: prometheus_client's multi-process files, in memory, one set for each process.

The gunicorn master makes the directory. When a worker has ended, the master adds its counters to a common file, so a
pod whose workers are replaced for weeks keeps its totals, and only as many files as it has workers.

The master must not import prometheus_client: it loads ``ssl``, and workers that gevent patches after the fork would
inherit it half-patched. So this module reads and writes the files itself. Their format
(prometheus_client/mmap_dict.py): an int32 with the bytes in use, 4 bytes of padding, then entries of an int32 key
length, the key (JSON), spaces up to a multiple of 8, and two doubles, value and time stamp, all in native byte order.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Final

from ..signs import board

logger = logging.getLogger("headwater.health")

PREFIX: Final = "headwater-metrics-"
VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

# The kinds whose values outlive their process. The gauges of an ended process mean nothing.
LASTING: Final = ("counter", "histogram", "summary")

_INT: Final = struct.Struct("i")
_VALUE: Final = struct.Struct("dd")


def tag(pid: int) -> str:
    """Return the mark of this service's files, which tells them from the app's own prometheus metrics: these may be in
    the same directory, with names that end in ``_<pid>.db``."""
    return f"sse-{pid}"


def base() -> Path:
    """Return a directory in memory if there is one, else the temporary directory."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def allocate(path: Path, size: int) -> None:
    """Make a file and allocate all its bytes, so that writing to a map of it needs no more room.

    Threat: if the file system is full (a container's /dev/shm has 64 MB), writing to a hole in a mapped file raises
    SIGBUS, which kills the process.

    Raises OSError if there is no room.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)


class _Process:
    """The directory that this process or its master made."""

    directory: Path | None = None
    owner = 0


_process: Final = _Process()


def pod_directory() -> Path | None:
    """Return the directory of this pod's counters; None if no master has made one."""
    return _process.directory


def share_directory() -> None:
    """Make the pod's directory, in the master before it forks; removed when this process ends.

    ``PROMETHEUS_MULTIPROC_DIR`` is set to it, so that an app's own prometheus metrics are exported along with
    ours. A directory that is named there already is used as it is, and left.
    """
    if _process.directory is None:
        try:
            _share_directory()
        except OSError as error:
            _process.directory = None
            logger.warning("metrics are off, but for the workers' and processes': no directory for them: %s", error)


def _share_directory() -> None:
    if named := os.environ.get(VARIABLE):
        _process.directory = Path(named)
        _process.directory.mkdir(parents=True, exist_ok=True)
        # What an earlier run left: counters begin at 0 with the process. Only files of these very names,
        # in case the variable names a directory of something else; and none while gunicorn replaces
        # itself (USR2).
        for kind in () if "GUNICORN_PID" in os.environ else (*LASTING, "gauge"):
            for left in _process.directory.glob(f"{kind}_*.db"):
                left.unlink(missing_ok=True)
    else:
        _process.directory = make_directory()
        _process.owner = os.getpid()
        os.environ[VARIABLE] = str(_process.directory)


def remove_directory() -> None:
    """Remove the directory, if this process made it."""
    if _process.directory is not None and _process.owner == os.getpid():
        shutil.rmtree(_process.directory, ignore_errors=True)
        os.environ.pop(VARIABLE, None)
        _process.directory = None


def make_directory() -> Path:
    """Make a directory, removed when this process ends; and remove those that killed masters left behind.

    Raises OSError when none can be made.

    Threat: an emptyDir outlives its containers, and in memory it counts as the pod's: a pod that crashes
    again and again would fill it with its own remains. A directory is in use while somebody holds the lock of
    the file in it; the process that made it does, and every process that it forked.
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
            continue  # in use, another user's, or being made at this moment
    # It gets its name with its lock, so that nobody who tidies up at this moment takes it for left behind.
    making = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    lock = os.open(making / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory = making.rename(parent / making.name[1:])
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # forked workers run their master's exit handlers, too
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    return directory


def read_values(path: Path) -> dict[bytes, tuple[float, float]]:
    """The entries of one file: key → (value, time stamp). Raises ValueError on a damaged file, OSError."""
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
    """Replace a file by these entries, at once: a reader sees the old file or the new one."""
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
    """Add the counters of a worker that has ended to those of all who ended before, and drop its gauges."""
    shared = board.shared()
    if shared is None:
        _fold(directory, pid)
        return
    with shared.folding():  # a scrape in this moment starts again
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
                # Cut short while it was being made, by SIGKILL. Its counts are lost, the scrape must not be.
                logger.warning("the counters of worker %d are lost: %s", pid, error)
            source.unlink(missing_ok=True)
        for gauge in directory.glob(f"gauge_live*_{ours}.db"):
            gauge.unlink(missing_ok=True)
