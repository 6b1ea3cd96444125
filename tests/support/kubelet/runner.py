"""Runs a pod's process and its probes in real time, and records the timeline."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.kubelet.core import Command, Event, Machine, Phase, RunProbe, SendSignal, StartContainer
from tests.support.kubelet.probers import run_probe
from tests.support.kubelet.specs import PodSpec, Scale
from tests.support.reaper import reaper
from tests.support.wait import eventually

_REAL_TIME: Final = Scale()

#: A message for the machine, called with the time.
_Message = Callable[[float], list[Command]]


class Kubelet:
    """Runs one pod until it is deleted::

        with Kubelet(spec, tmp_path) as kubelet:
            kubelet.wait_for("Ready")
            ...
            assert kubelet.restarts == 0, kubelet.describe()

    The machine runs in one thread; probes and the wait for the process have threads of their own, and send messages.

    spec: the pod.
    directory: for the containers' output, one file for each start (``web-0.log``, ``web-1.log``, …).
    scale: shrinks the durations.
    """

    def __init__(self, spec: PodSpec, directory: Path, scale: Scale = _REAL_TIME) -> None:
        self.spec = spec.scaled(scale)
        self.machine = Machine(self.spec)
        self._directory = directory
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        # As in a container, only PATH is inherited from the environment.
        path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
        self.env = {"PATH": path, "HOME": str(directory), "LANG": "C.UTF-8", **self.spec.env}
        self._thread = threading.Thread(target=self._run, name=f"kubelet-{spec.name}")

    # ── for tests ─────────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the pod at once; delete it first to see it end in its own time."""
        self._over.set()
        self._messages.put(lambda now: [])
        self._thread.join(10)
        if self._failure is not None and kind is None:
            raise self._failure

    @property
    def now(self) -> float:
        """Return the seconds since the pod began, as in the timeline."""
        return time.monotonic() - self._began

    @property
    def timeline(self) -> list[Event]:
        return list(self.machine.timeline)

    @property
    def restarts(self) -> int:
        return self.machine.restarts

    @property
    def ready(self) -> bool:
        """Return whether it is in the Service's endpoints."""
        return self.machine.endpoint_ready

    @property
    def pid(self) -> int | None:
        """Return the main process of the running container."""
        return None if self._process is None else self._process.pid

    def port(self, name: str) -> int:
        """Return the local port for a named port of the container."""
        return self.spec.ports[name]

    def delete(self) -> None:
        """Delete it, as ``kubectl delete pod`` and a rollout do; returns at once."""
        self._messages.put(self.machine.delete)

    def events(self, reason: str) -> list[Event]:
        return [event for event in self.timeline if event.reason == reason]

    def count(self, reason: str) -> int:
        return len(self.events(reason))

    def wait_for(self, reason: str, times: int = 1, timeout: float = 20.0) -> Event:
        """Wait, in real seconds, for the nth event of this reason; return it."""
        eventually(
            lambda: self.count(reason) >= times or self._check(),
            timeout,
            lambda: f"no event {reason} ({times})\n{self.describe()}",
        )
        return self.events(reason)[times - 1]

    def wait_ended(self, timeout: float = 40.0) -> None:
        """Wait until a deleted pod is gone."""
        eventually(lambda: self.machine.phase is Phase.ENDED or self._check(), timeout, self.describe)

    def describe(self) -> str:
        """Describe the pod like ``kubectl describe pod``, with the end of its output."""
        lines = [f"{self.spec.name}: {self.machine.phase.value}, ready {self.ready}, restarts {self.restarts}"]
        lines += [f"{event.at:8.2f}s  {event.reason:<9}  {event.message}" for event in self.timeline]
        return "\n".join([*lines, "--- output", self.output()[-3000:]])

    def output(self) -> str:
        """Return what the containers have written since the first start."""
        logs = sorted(self._directory.glob(f"{self.spec.container}-*.log"))
        return "".join(log.read_text(errors="replace") for log in logs)

    def _check(self) -> bool:
        if self._failure is not None:
            raise self._failure
        return False

    # ── the one thread that decides ───────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self._failure = error
        finally:
            self._end_all()

    def _loop(self) -> None:
        while not self._over.is_set() and self.machine.phase is not Phase.ENDED:
            self._obey(self.machine.tick(self.now))
            due = self.machine.next_at()
            wait = None if due is None else max(due - self.now, 0.0)
            with contextlib.suppress(queue.Empty):
                message = self._messages.get(timeout=wait)
                self._obey(message(self.now))

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, StartContainer):
                self._start(command.restarts)
            elif isinstance(command, RunProbe):
                self._in_thread(self._probe, command)
            elif isinstance(command, SendSignal):
                self._signal(command.kill)

    @staticmethod
    def _in_thread(work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _probe(self, probe: RunProbe) -> None:
        spec = self.spec.probes[probe.kind]
        result = run_probe(spec.action, spec.timeout, env=self.env, cwd=self.spec.cwd)
        self._messages.put(lambda now: self.machine.probed(now, probe, result.outcome, result.message))

    # ── the process ───────────────────────────────────────────────────────────────────────────────────────

    def _start(self, restarts: int) -> None:
        path = self._directory / f"{self.spec.container}-{restarts}.log"
        with path.open("wb") as log:
            try:
                process = subprocess.Popen(
                    self.spec.command,
                    env=self.env,
                    cwd=self.spec.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{error}\n".encode())
                self._messages.put(lambda now: self.machine.exited(now, 128))  # as containerd: StartError
                return
        reaper.watch(process.pid)
        self._process = process
        self._in_thread(self._wait, process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ChildProcessError):
            # Not reaped yet: while it is a zombie, its number cannot become another process group's.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            # A container's process namespace, and all that is left in it, ends with the main process.
            _kill_group(process.pid)
        status = process.wait()

        def ended(now: float) -> list[Command]:
            self._process = None
            return self.machine.exited(now, status)

        self._messages.put(ended)

    def _signal(self, kill: bool) -> None:
        """Send TERM to the main process alone, KILL to the whole container (PL "Termination of Pods")."""
        if self._process is None:
            return
        if kill:
            _kill_group(self._process.pid)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def _end_all(self) -> None:
        if self._process is not None:
            _kill_group(self._process.pid)
            self._process.wait()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    reaper.release(group)
