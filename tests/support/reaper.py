"""Ends the process groups of a test run that was killed before it could clean up.

One child per test process reads ``+<group>`` and ``-<group>`` lines from a pipe. When the pipe closes, however the test
process ended, every group not released gets SIGKILL. (``PR_SET_PDEATHSIG`` would be shorter, but it fires when the
*thread* that started the server ends, and tests start servers from threads.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

_PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Reaper:
    """The pipe to the one child; started with the first group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._owner = 0
        self._child: subprocess.Popen[bytes] | None = None  # kept, because a running Popen warns when it is collected

    def watch(self, group: int) -> None:
        """Kill ``group`` (a process group id) should this process end without ``release``."""
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Forget ``group``: it is gone, and its number may be reused."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._pipe is None or self._owner != os.getpid():
                read_end, self._pipe = os.pipe()  # not inheritable: no server keeps it open
                self._owner = os.getpid()
                self._child = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM], stdin=read_end, start_new_session=True
                )
                os.close(read_end)
                # It ends after us, so nobody can wait for it: no ResourceWarning for that.
                self._child.returncode = 0
            os.write(self._pipe, line.encode())


reaper = Reaper()
