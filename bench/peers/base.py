"""Starts, addresses, watches and stops a server under test.

The serving side (all workers, and Redis if needed) runs on SERVER_CPU, the load generator on LOAD_CPU, so every figure
is per core.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SERVER_CPU = 0
LOAD_CPU = 1
START_DEADLINE = 30.0  # seconds until a peer must answer
STOP_DEADLINE = 5.0  # seconds after SIGTERM until SIGKILL
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1  # linux/prctl.h: the signal for a child whose parent died
NOTHING = "nothing"  # what a peer has stored that only passes events on


class PeerFailed(RuntimeError):
    """A peer did not start, or died; the message ends with its last log lines."""


@dataclass(frozen=True)
class Target:
    """Where and how the load generator streams and publishes; the defaults are Headwater's."""

    path: str = "/events/{channel}"
    publish_path: str = "/events/{channel}"
    body: str = "{data}"
    content_type: str = "text/plain"
    headers: tuple[str, ...] = ()
    publish_headers: tuple[str, ...] = ()
    lazy_head: bool = False  # the response's head arrives only with the first event
    settle: float = 0.3  # seconds between the last stream's opening and the first publish
    settle_each: float = 0.0  # seconds more per stream, if it is ready only some time after its opening

    def arguments(self, streams: int = 0) -> list[str]:
        """Return the load generator's options."""
        given = [f"--path={self.path}", f"--publish-path={self.publish_path}", f"--body={self.body}"]
        given += [f"--content-type={self.content_type}", f"--settle={self.settle + streams * self.settle_each:g}"]
        given += [f"--header={each}" for each in self.headers]
        given += [f"--publish-header={each}" for each in self.publish_headers]
        return [*given, "--lazy-head=1"] if self.lazy_head else given


@dataclass(frozen=True)
class Command:
    """One process of a peer."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Peer(ABC):
    """A kind of server. Subclasses define what to run; `started()` runs it."""

    name = ""  # on the command line and in the result file
    title = ""  # in the report
    target = Target()
    batch_target: Target | None = None  # how to publish several events in one request, if it can
    most_streams = 0  # 0: any number
    opens_per_second = 4000  # streams, roughly, for estimating a run's time
    resumes = False  # does it replay after Last-Event-ID?
    stores = ""  # what it has stored before it acknowledges an event, for the report
    is_durable = False  # is that on disk, so that it survives the server's process?
    only_in = ""  # the one scenario in which it differs from another peer
    creates_channels = False  # must a channel be created before it is used?
    ready_path = "/healthz"
    cpus: tuple[int, ...] = (SERVER_CPU,)

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Build or install what the peer needs; raises build.Unavailable with the reason it cannot run."""

    def version(self) -> str:
        """Return what was measured, for the report."""
        return ""

    def create_channel(self, port: int, channel: str) -> None:  # noqa: B027 - most need nothing
        """Create a channel, if the peer needs that."""

    @abstractmethod
    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        """Return the processes to start, in order, the server that listens at `port` last.

        `folder` is an empty temporary directory; `streams` is how many streams the server must hold.
        """

    @contextlib.contextmanager
    def started(self, streams: int) -> Iterator[Running]:
        """Start the peer, wait until it answers, and always stop it at the end."""
        self.prepare()
        folder = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        port = free_port()
        processes: list[subprocess.Popen[bytes]] = []
        log = folder / "log.txt"
        try:
            health_port = None
            for command in self.commands(port, folder, streams):
                processes.append(self._spawn(command, log))
                health_port = int(command.env["HEALTH_PORT"]) if "HEALTH_PORT" in command.env else None
            running = Running(self, port, [process.pid for process in processes], folder, health_port)
            _wait_ready(port, self.ready_path, processes[-1], log)
            yield running
        finally:
            for process in reversed(processes):
                _stop(process)
            shutil.rmtree(folder, ignore_errors=True)

    def _spawn(self, command: Command, log: Path) -> subprocess.Popen[bytes]:
        cpus = set(self.cpus) & os.sched_getaffinity(0) or os.sched_getaffinity(0)

        def child() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # nobody else would end it then
            os.sched_setaffinity(0, cpus)
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

        with log.open("ab") as out:
            return subprocess.Popen(
                command.argv,
                env={**os.environ, **command.env},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=child,
            )


@dataclass(frozen=True)
class Running:
    """A peer that answers."""

    peer: Peer
    port: int
    sessions: list[int]  # one session (setsid) per started process
    folder: Path
    health_port: int | None = None  # if probes have a port of their own

    def pids(self) -> list[int]:
        """Return all processes of the serving side, workers and helpers too."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _session(path) in self.sessions]

    def arguments(self, channel: str, target: Target | None = None, streams: int = 0) -> list[str]:
        """Return the load generator's options for this server and this many streams."""
        chosen = target or self.peer.target
        given = [f"--port={self.port}", f"--channel={channel}", f"--cpu={LOAD_CPU}"]
        return [*given, *chosen.arguments(streams), *(f"--watch={pid}" for pid in self.pids())]


def _session(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, IndexError, ValueError):  # it ended while we looked
        return -1


def _wait_ready(port: int, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            if connection.getresponse().status < 500:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise PeerFailed(f"no answer on GET {path} within {START_DEADLINE:g} s: {said.strip()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its session's children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_DEADLINE)
    with contextlib.suppress(ProcessLookupError):  # workers that outlived their master
        os.killpg(process.pid, signal.SIGKILL)
