"""Find out from /proc which of a server's workers does what."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from tests.support.server import Server


def worker_of(server: Server, client: socket.socket) -> int:
    """Return the pid of the worker that holds the other end of this connection."""
    ours, port = client.getsockname()[1], server.port
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and int(fields[2].split(":")[1], 16) == ours:
            inode = f"socket:[{fields[9]}]"
    for pid in server.worker_pids():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(fd) == inode:
                    return pid
    raise AssertionError("no worker holds it")


def upkeeper_of(server: Server, log: Path) -> int | None:
    """Return the pid of the worker that does the upkeep of this SQLite log; None: no worker yet."""
    inode = os.stat(f"{log}-upkeep").st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and int(fields[4]) in server.worker_pids():
            return int(fields[4])
    return None
