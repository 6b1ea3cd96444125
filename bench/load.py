"""Runs the load generator (`loadgen/*.c`) and returns what it counted. `loadgen/options.c` has its options.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from bench import build

Result = dict[str, Any]


class LoadFailed(RuntimeError):
    """The generator ended without a result; the message has what it printed."""


class Generator:
    """One run of the generator, as a context manager; leaving it always ends the process."""

    def __init__(self, arguments: Iterable[str]) -> None:
        self._arguments = [str(build.loadgen()), *arguments]
        self._buffer = b""

    def __enter__(self) -> Generator:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The generator's process id."""
        return self._process.pid

    def line(self, timeout: float) -> Result:
        """Read the generator's next JSON line, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LoadFailed(f"no line from the load generator within {timeout:g} s")
            if not select.select([self._process.stdout], [], [], left)[0]:
                continue
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                said = self._process.stderr.read().decode() if self._process.stderr else ""
                raise LoadFailed(f"the load generator ended with {self._process.wait()}: {said.strip()}")
            self._buffer += piece
        text, self._buffer = self._buffer.split(b"\n", 1)
        result: Result = json.loads(text)
        return result

    def finish(self, timeout: float) -> Result:
        """End the current phase early, and return the result."""
        self._process.send_signal(signal.SIGINT)
        return self.line(timeout)


def run(arguments: Iterable[str], timeout: float) -> Result:
    """Run the generator to its end; return its result line."""
    with Generator(arguments) as generator:
        generator.line(timeout)
        return generator.line(timeout)
