"""A redis-server as a child process, with the faults that tests need."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.wait import eventually


class RedisServer:
    """One redis-server on a free port of 127.0.0.1 that outlives its restarts. Use it as a context manager.

    config: settings by their names in redis.conf, ``_`` for ``-``; the append-only file is on by default.
    sentinel: start it with ``--sentinel``; ``config`` then holds whole lines as values of any name.
    tls: listen on a second port, for TLS only (``tls_url``).
    program: the server's path, if not the machine's redis-server.
    directory: where its files are and stay, if not in a temporary one.
    """

    def __init__(
        self,
        *,
        sentinel: bool = False,
        tls: bool = False,
        program: str | None = None,
        directory: Path | None = None,
        **config: str | int,
    ) -> None:
        self._program = program or require_program("redis-server", "redis-server")
        self.directory = directory or Path(tempfile.mkdtemp(prefix="headwater-redis-"))
        self._keep = directory is not None
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self._tls = ReservedPort() if tls else None
        self._sentinel = sentinel
        settings: dict[str, str | int] = {"save": '""', "appendonly": "yes", **config}
        lines = (
            [str(line) for line in config.values()]
            if sentinel
            else [f"{name.replace('_', '-')} {value}" for name, value in settings.items()]
        )
        lines += [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", "loglevel warning"]
        if self._tls is not None:
            lines.append(f"tls-port {self._tls.number}")
        self._config = self.directory / "redis.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    # ── life ───────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, *, ready: bool = True) -> Self:
        """Start it, and wait until it answers unless ``ready`` is false."""
        with (self.directory / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, str(self._config), *(["--sentinel"] if self._sentinel else [])],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        reaper.watch(self._process.pid)
        if ready:
            eventually(lambda: self.answers() or self.process.poll() is not None, 10.0, self.output)
            assert self.process.poll() is None, self.output()
        return self

    def answers(self) -> bool:
        try:
            with contextlib.closing(self.client(socket_timeout=1)) as client:
                return bool(client.ping())
        except redis.RedisError as error:
            return isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)

    def kill(self) -> None:
        """``kill -9``, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
            reaper.release(process.pid)

    def pause(self) -> None:
        """Stop it from answering; connections stay, and the kernel still accepts new ones."""
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(") ")[2].startswith("T"), message="it did not stop")

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self._reserved.release()
        if self._tls is not None:
            self._tls.release()
        if not self._keep:
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
        self.close()

    # ── use ────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it does not run"
        return self._process

    @property
    def tls_url(self) -> str:
        assert self._tls is not None
        return f"rediss://127.0.0.1:{self._tls.number}/0"

    def client(self, **options: Any) -> redis.Redis:
        """Return a redis-py client, for a test that bypasses the log."""
        return redis.Redis(port=self.port, protocol=2, driver_info=None, retry=Retry(NoBackoff(), 0), **options)

    def run(self, *command: Any) -> Any:
        """Run one command; return its reply as redis-py does."""
        with contextlib.closing(self.client(socket_timeout=10)) as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def unread(self) -> int:
        """Return the bytes that clients have sent and Redis has not read, by the kernel's count."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        port = f":{self.port:04X}"
        return sum(int(line[4].split(":")[1], 16) for line in lines if line[1].endswith(port) and line[3] == "01")

    def output(self) -> str:
        """Return its output, for the message of a failed test."""
        return (self.directory / "redis.log").read_text(errors="replace")[-4000:]
