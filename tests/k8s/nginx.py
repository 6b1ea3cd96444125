"""nginx with deploy/nginx.conf, at free ports and over the addresses that the test names."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.server import ROOT
from tests.support.wait import eventually

SHIPPED = ROOT / "deploy" / "nginx.conf"


class Nginx:
    """nginx as we ship it. A test replaces only addresses and places for files in its text, each found exactly once, so
    that users run the rest.

    :param directory: for its files; must exist.
    """

    def __init__(self, directory: Path) -> None:
        self._program = require_program("nginx", "nginx")
        self.directory = directory
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._config = directory / "nginx.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.reloads = 0

    def start(self, ports: Sequence[int]) -> Self:
        """Start it over these local ports."""
        self._write(ports)
        with (self.directory / "nginx.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._config), "-p", str(self.directory), "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        reaper.watch(self._process.pid)
        eventually((self.directory / "nginx.pid").exists, 10.0, self.output)
        return self

    def serve(self, ports: Sequence[int]) -> None:
        """Serve these ports from now on: as an ingress controller does when the endpoints change. What is under way
        goes on where it is."""
        assert self._process is not None
        self._write(ports)
        self.reloads += 1
        self._process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """End it and all its workers at once."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            reaper.release(process.pid)
        self._reserved.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def output(self) -> str:
        """Return the end of its output, for the message of a failed test."""
        return (self.directory / "nginx.log").read_text(errors="replace")[-3000:]

    def _write(self, ports: Sequence[int]) -> None:
        text = SHIPPED.read_text()
        replacements = {
            "server headwater:8080 max_fails=0;": " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports),
            "listen 8000;": f"listen 127.0.0.1:{self.port};",
            "worker_processes auto;": "worker_processes 1;",
            "pid /tmp/nginx.pid;": f"pid {self.directory}/nginx.pid;",
            "error_log /dev/stderr warn;": f"error_log {self.directory}/error.log warn;",
            "access_log /dev/stdout path;": f"access_log {self.directory}/access.log path;",
        }
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            replacements[f" /tmp/{name};"] = f" {self.directory}/{name};"
        for old, new in replacements.items():
            assert text.count(old) == 1, f"deploy/nginx.conf: {old!r} is there {text.count(old)} times, not once"
            text = text.replace(old, new)
        # Renamed into place, because a reload must not read half of it.
        new_file = self._config.with_suffix(".new")
        new_file.write_text(text)
        new_file.replace(self._config)
