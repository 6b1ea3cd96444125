"""The failure modes' lab with the plain app's manifest, and with the doctor's repair of it: the same app, the same fault,
the simulated kubelet. Only the first is restarted.

The repair does not repair the app: a full pool is still full, and its pod not ready. But no stream is cut.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

from health.doctor import cli
from tests.failure_modes.crowd import Crowd
from tests.failure_modes.pods import PLAIN_MANIFEST, ROOT, TENTH, TWENTIETH, Pod, Ports, running
from tests.support.kubelet import Scale, pod_from_manifest
from tests.support.redis_server import RedisServer
from tests.support.wait import eventually

EXACT = replace(TENTH, least_timeout=0.1)


@dataclass(frozen=True)
class Failure:
    """One of docs/failure-modes.md.

    fault: harms a running pod; ready: wait until it runs; change: the difference in the manifest.
    """

    number: int
    fault: Callable[[Pod], AbstractContextManager[object]] = lambda pod: contextlib.nullcontext()
    env: dict[str, str] = field(default_factory=dict)
    ready: bool = True
    change: Callable[[str], str] = lambda text: text
    scale: Scale = TWENTIETH
    redis: bool = False


def crowd(clients: int, path: str = "/events", **how: object) -> Callable[[Pod], AbstractContextManager[object]]:
    return lambda pod: Crowd(pod.port, clients, path, **how)  # type: ignore[arg-type]


@contextlib.contextmanager
def blocked(pod: Pod) -> Iterator[None]:
    """Run two users who ask for a report of 3 s, in the lab's time, again and again."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                pod.ask("GET", "/report?seconds=0.3", timeout=3)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(15)


@contextlib.contextmanager
def crashed_before_a_crowd(pod: Pod) -> Iterator[None]:
    """Run clients that all reconnect at once after one crash."""
    with Crowd(pod.port, 400, "/events", reconnect=0.3) as clients:
        clients.wait(lambda crowd: crowd.answered >= 100, 20)
        assert pod.kubelet.pid is not None
        os.kill(pod.kubelet.pid, signal.SIGKILL)
        pod.kubelet.wait_for("Started", 2)
        yield


FAILURES = [
    pytest.param(Failure(1, crowd(150, reconnect=0.3)), id="1 full pool", marks=pytest.mark.slow),
    pytest.param(
        Failure(2, env={"WELCOME": ""}, ready=False, change=lambda text: text.replace("/healthz", "/events")),
        id="2 probe at a stream",
    ),
    pytest.param(Failure(3, env={"SLOW_START": "4"}, ready=False), id="3 slow start"),
    pytest.param(Failure(7, blocked, scale=EXACT), id="7 blocked loop", marks=pytest.mark.slow),
    pytest.param(Failure(8, crowd(100, reads=False)), id="8 stalled readers", marks=pytest.mark.slow),
    pytest.param(Failure(10, crowd(120, "/", trickle=0.5, reconnect=0.1)), id="10 slow headers", marks=pytest.mark.slow),
    pytest.param(Failure(12, redis=True), id="12 dependency away", marks=pytest.mark.slow),
    pytest.param(Failure(13, crashed_before_a_crowd), id="13 all come back", marks=[pytest.mark.slow, pytest.mark.serial]),
]  # fmt: skip


def repaired(text: str, path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path.write_text(text)
    cli.main(["-f", str(path), "--fix", "--stream-path", "/events"])
    fixed = capsys.readouterr().out
    path.write_text(fixed)
    assert cli.main(["-f", str(path), "--stream-path", "/events", "--fail-on", "risks"]) == 0, capsys.readouterr().out
    capsys.readouterr()
    return fixed


@contextlib.contextmanager
def pod_of(text: str, folder: Path, failure: Failure, **env: str) -> Iterator[Pod]:
    """The plain app under a manifest.

    Only the original's start is given time where the start is not the subject: a busy machine needs seconds for it.
    """
    ports = Ports()
    documents = list(yaml.safe_load_all(text))
    container = documents[0]["spec"]["template"]["spec"]["containers"][0]
    if failure.ready and "startupProbe" not in container:
        container["livenessProbe"]["initialDelaySeconds"] = 50
    settings = {"GRACEFUL_TIMEOUT": "1", "PYTHONPATH": str(ROOT), **failure.env, **env}
    spec = pod_from_manifest(documents, free_port=ports, env=settings, cwd=ROOT)
    with running(spec, ports, folder, failure.scale, ready=failure.ready) as pod:
        yield pod


@contextlib.contextmanager
def suffering(text: str, folder: Path, failure: Failure) -> Iterator[Pod]:
    """Run a pod with the fault."""
    if not failure.redis:
        with pod_of(text, folder, failure) as pod, failure.fault(pod):
            yield pod
        return
    with RedisServer() as server, pod_of(text, folder, failure, REDIS_URL=server.url) as pod:
        server.pause()
        yield pod


@pytest.mark.parametrize("failure", FAILURES)
def test_the_repaired_manifest_prevents_the_same_apps_restarts(
    failure: Failure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = failure.change(PLAIN_MANIFEST.read_text())
    fixed = repaired(text, tmp_path / "manifest.yaml", capsys)

    with suffering(text, tmp_path / "as-it-is", failure) as pod:
        begun = pod.kubelet.now
        pod.kubelet.wait_for("Killing")
        patience = pod.kubelet.now - begun

    with suffering(fixed, tmp_path / "repaired", failure) as pod:
        before = pod.kubelet.count("Started")
        until = pod.kubelet.now + 2 * patience + 2
        eventually(lambda: pod.kubelet.now > until or pod.kubelet.count("Killing") > 0, 60)
        assert pod.kubelet.count("Killing") == 0, pod.kubelet.describe()
        assert pod.kubelet.count("Started") == before


@pytest.mark.slow
@pytest.mark.serial
def test_the_repaired_grace_period_ends_before_sigkill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No. 9: gunicorn's own 30 s, in the lab 3, are as long as the grace period, and 10 s shorter than the repaired one."""
    text = PLAIN_MANIFEST.read_text()
    failure = Failure(9, crowd(20), scale=TENTH, env={"GRACEFUL_TIMEOUT": "3"})
    killed = []
    for name, manifest in (("as-it-is", text), ("repaired", repaired(text, tmp_path / "manifest.yaml", capsys))):
        with suffering(manifest, tmp_path / name, failure) as pod:
            pod.kubelet.delete()
            pod.kubelet.wait_ended()
            killed.append(any("SIGKILL" in event.message for event in pod.kubelet.events("Killing")))
            assert re.search(r"grace|Stopping", " ".join(event.message for event in pod.kubelet.events("Killing")))
    assert killed == [True, False]
