"""The service as a child process: gunicorn, our configuration, its own log."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.support.ports import ReservedPort
from tests.support.reaper import reaper
from tests.support.wait import eventually

ROOT = Path(__file__).resolve().parents[2]

COMMAND = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app")

#: Variables of the caller's shell that must not affect the tests.
OURS = ("SSE_", "HEALTH_", "LOG_", "GUNICORN_")
OURS_TOO = ("HOST", "PORT", "WEB_CONCURRENCY", "WORKER_CONNECTIONS", "PROMETHEUS_MULTIPROC_DIR", "REDIS_URL")


class Answer(NamedTuple):
    """One HTTP answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """Return the body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as JSON."""
        import json

        return json.loads(self.body)


class ServerFailed(AssertionError):
    """The server did not start, or did not end; the message has the tail of its output."""


class Server:
    """Starts the service on two free ports, and leaves no process behind.

    Use it as a context manager, or call ``start`` and ``close``.

    args: further arguments for gunicorn (``"--workers", "2"``).
    directory: where the log and the output go; a temporary one, removed at the end, when omitted.
    startup_timeout: seconds until ``/startupz`` must answer 200.
    command: what to start instead of gunicorn with ``wsgi:app`` in the project's root.
    cwd: the working directory.
    env: environment of the server; numbers are written out, ``None`` removes a variable. ``HOST``,
        ``PORT``, ``HEALTH_PORT`` and ``SSE_LOG`` have defaults here; nothing else of ours is inherited.
    """

    def __init__(
        self,
        *args: str,
        directory: Path | None = None,
        startup_timeout: float = 20.0,
        command: tuple[str, ...] = COMMAND,
        cwd: Path = ROOT,
        **env: str | float | None,
    ) -> None:
        self._own_directory = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="headwater-")) if directory is None else directory
        self.log_path = self.directory / "server.log"
        self._ports = ReservedPort(), ReservedPort()
        self.port, self.health_port = (port.number for port in self._ports)
        self._args = args
        self._command = command
        self._cwd = cwd
        self._startup_timeout = startup_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._gone = True  # nothing runs: its process ids may be reused, so send no signal
        self.env: dict[str, str | float | None] = {
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "HEALTH_PORT": self.health_port,
            "SSE_LOG": f"sqlite:///{self.directory}/h.db",
            **env,
        }
        self.port, self.health_port = int(self.env["PORT"] or 0), int(self.env["HEALTH_PORT"] or 0)

    # ── life ───────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, *, ready: bool = True) -> Self:
        """Start it, and wait for ``/startupz`` on the health port unless ``ready`` is false.

        Raises ServerFailed if it ended, or did not answer 200 in time; then nothing runs any more.
        """
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, *self._args],
                cwd=self._cwd,
                env=_environment(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._gone = False
        reaper.watch(self._process.pid)
        if ready:
            self._await_startup()
        return self

    def _await_startup(self) -> None:
        deadline = time.monotonic() + self._startup_timeout
        last: object = "no answer"
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                last = f"it ended with status {status}"
                break
            try:
                answer = self.request("GET", "/startupz", port=self.health_port, timeout=2.0)
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            else:
                if answer.status == 200 and self._workers_are_up():
                    return
                last = f"{answer.status} {answer.body!r}, workers {self.worker_pids()}"
            time.sleep(0.03)
        self.kill()
        raise ServerFailed(f"the server did not start: {last}\n{self.log_tail()}")

    def _workers_are_up(self) -> bool:
        """Return whether all workers were forked and have their own signal handlers.

        gunicorn's children lose a SIGTERM that arrives earlier, and a test that starts and ends two workers quickly would
        wait for the whole graceful time-out. Only workers catch SIGABRT.
        """
        workers = self.worker_pids()
        return len(workers) >= self.worker_count and all(_catches(pid, signal.SIGABRT) for pid in workers)

    def close(self) -> None:
        """End everything at once; safe to call twice."""
        self.kill()
        for port in self._ports:
            port.release()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and hasattr(error, "add_note"):
            error.add_note(f"the server's output:\n{self.log_tail()}")
        self.close()

    # ── signals ────────────────────────────────────────────────────────────────────────────────────────────

    def terminate(self) -> None:
        """Send SIGTERM to the master, as Kubernetes does."""
        self.process.terminate()

    def signal(self, number: int) -> None:
        """Send any other signal to the master."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the master, then to its workers (it would replace them), and wait for their end."""
        if self._gone:
            return
        workers = self.worker_pids()
        self.process.kill()  # does nothing after it has been waited for
        self.process.wait(10)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._sweep()

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for the master's end and return its exit status (negative: the signal).

        Raises ServerFailed: it still runs after ``timeout`` seconds.
        """
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            tail = self.log_tail()
            raise ServerFailed(f"the server still runs after {timeout:g} s\n{tail}") from None
        self._sweep()
        return status

    def restart(self, *, timeout: float = 30.0) -> Self:
        """Start it again on the same ports with the same log; if it still runs, end it gracefully first."""
        if self.process.poll() is None:
            self.terminate()
            self.wait(timeout)
        return self.start()

    def _sweep(self) -> None:
        """Kill what is left of the group, such as a worker forked while the others were dying."""
        if self._gone:
            return
        group = self.process.pid

        def gone() -> bool:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
                return all(state == "Z" for _, _, state in _members(group))
            return True

        eventually(gone, 10, f"the process group {group} does not die")
        self._gone = True
        reaper.release(group)

    # ── looking ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def worker_count(self) -> int:
        """Return how many workers it was asked to have."""
        return int(self.env.get("WEB_CONCURRENCY") or 1)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Return the master."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def pid(self) -> int:
        """Return the master's process id."""
        return self.process.pid

    def pids(self) -> list[int]:
        """Return the master and every other living process of its group."""
        return [pid for pid, _, state in _members(self.pid) if state != "Z"]

    def worker_pids(self) -> list[int]:
        """Return the master's living children."""
        return [pid for pid, parent, state in _members(self.pid) if parent == self.pid and state != "Z"]

    def log_text(self) -> str:
        """Return all that it wrote to stdout and stderr, since the first start."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of ``log_text``."""
        return "\n".join(self.log_text().splitlines()[-lines:]) or "(it wrote nothing)"

    def wait_for_log(self, text: str, timeout: float = 5.0) -> None:
        """Wait until it has written ``text``."""
        eventually(lambda: text in self.log_text(), timeout, lambda: f"{text!r} not in:\n{self.log_tail()}")

    # ── talking ────────────────────────────────────────────────────────────────────────────────────────────

    def url(self, path: str = "/") -> str:
        """Return the URL of ``path`` on the main port."""
        return f"http://127.0.0.1:{self.port}{path}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        """Send one request on a new connection; ``port`` defaults to the main one.

        Raises OSError or http.client.HTTPException as ``http.client`` does.
        """
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            connection.request(method, path, body.encode() if isinstance(body, str) else body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def publish(self, channel: str, data: bytes | str, query: str = "", **headers: str) -> str:
        """POST one event and return its id; underscores in header names become dashes.

        Raises AssertionError: any other answer than 201.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.request("POST", f"/events/{channel}{query}", data, named)
        assert answer.status == 201, f"POST to {channel!r}: {answer.status} {answer.body!r}"
        return str(answer.json()["id"])


def _environment(env: Mapping[str, str | float | None]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    inherited["PYTHONUNBUFFERED"] = "1"
    return inherited | {name: f"{value}" for name, value in env.items() if value is not None}


def _is_ours(name: str) -> bool:
    return name.startswith(OURS) or name in OURS_TOO


def _catches(pid: int, number: int) -> bool:
    """Return whether the process has a handler for the signal, from /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _members(group: int) -> list[tuple[int, int, str]]:
    """Return ``(pid, parent, state)`` of each process in the process group, from /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The second field is the program's name in brackets, and may contain anything.
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                state, parent, pgrp = fields[0], int(fields[1]), int(fields[2])
                if pgrp == group:
                    found.append((int(entry), parent, state))
    return found
