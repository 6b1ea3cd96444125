"""The board and the metrics under the real gunicorn: every worker reports what happens to the others."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import ReservedPort
from tests.support.reaper import reaper
from tests.support.wait import eventually

ROOT = Path(__file__).parents[2]


class Pod:
    """gunicorn with tests/health/pod.py as configuration and app."""

    def __init__(self, directory: Path, workers: int = 2, worker_class: str = "gevent") -> None:
        self.directory = directory
        self.port = ReservedPort()
        self.shm = directory / "shm"
        self.shm.mkdir()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS")}
        environ |= {
            "POD_DIRECTORY": str(directory),
            "POD_WORKERS": str(workers),
            "POD_WORKER_CLASS": worker_class,
            "PYTHONPATH": str(ROOT),
        }
        self.log = (directory / "log").open("w")
        bind = f"127.0.0.1:{self.port.number}"
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            "tests/health/pod.py",
            "-b",
            bind,
            "--threads",
            "4",
        ]
        self.process = subprocess.Popen(
            [*command, "tests.health.pod:make_app()"],
            cwd=ROOT,
            env=environ,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        reaper.watch(self.process.pid)
        self.workers = workers

    def ask(self, path: str, timeout: float = 5.0) -> tuple[int, str, int]:
        """Status, body, and the process that answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port.number, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode(), int(response.headers["X-Worker"])
        finally:
            connection.close()

    def status(self, path: str = "/readyz") -> int:
        try:
            return self.ask(path)[0]
        except OSError:
            return 0

    def is_unready(self, word: str) -> bool:
        """One answer is 503 for this reason. A probe that the blocked worker accepts gets no answer."""
        try:
            status, text, _ = self.ask("/readyz", timeout=0.3)
        except OSError:
            return False
        return status == 503 and word in text

    def answers(self, times: int = 12) -> list[tuple[int, str, int]]:
        return [self.ask("/readyz?verbose") for _ in range(times)]

    def is_ready(self) -> bool:
        """All workers answer that the pod is ready."""
        answers = self.answers()
        return {status for status, _, _ in answers} == {200} and len(self.pids(answers)) == self.workers

    def pids(self, answers: list[tuple[int, str, int]] | None = None) -> list[int]:
        return sorted({pid for _, _, pid in answers or self.answers()})

    def wait_ready(self, timeout: float = 10.0) -> None:
        def text() -> str:
            return (self.directory / "log").read_text()[-3000:]

        eventually(lambda: self.status() == 200, timeout, text)
        eventually(self.is_ready, timeout, text)

    def metric(self, name: str) -> float:
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return -1.0

    def tell(self, word: str, pid: int) -> Path:
        path = self.directory / f"{word}-{pid}"
        path.touch()
        return path

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(5)
        reaper.release(self.process.pid)
        self.log.close()
        self.port.release()


@pytest.fixture(scope="module")
def shared_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    pod = Pod(tmp_path_factory.mktemp("pod"))
    yield pod
    pod.close()


@pytest.fixture
def pod(shared_pod: Pod) -> Pod:
    shared_pod.wait_ready()
    return shared_pod


def seen_by_all_others(pod: Pod, word: str, within: float, since: float) -> None:
    """Wait until every worker answers 503 for this reason, at most ``within`` seconds after ``since``."""
    eventually(
        lambda: all(status == 503 and word in text for status, text, _ in pod.answers()),
        within - (time.monotonic() - since),
        lambda: pod.ask("/readyz?verbose")[1],
        interval=0.05,
    )


def test_a_stopped_worker_is_noticed_within_3_seconds(pod: Pod) -> None:
    victim = pod.pids()[0]
    began = time.monotonic()
    os.kill(victim, signal.SIGSTOP)
    try:
        seen_by_all_others(pod, f"(pid {victim}) has not beaten", 3.0, began)
    finally:
        os.kill(victim, signal.SIGCONT)
    eventually(pod.is_ready, 5.0)


def test_a_worker_whose_view_blocks_the_loop_is_noticed_within_3_seconds(pod: Pod) -> None:
    with socket.create_connection(("127.0.0.1", pod.port.number)) as client:
        began = time.monotonic()
        client.sendall(b"GET /block/3.3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        eventually(lambda: pod.is_unready("has not beaten"), 3.0 - (time.monotonic() - began), interval=0.05)
        client.settimeout(5)
        assert client.recv(64).startswith(b"HTTP/1.1 200")
    eventually(pod.is_ready, 5.0)


def test_a_draining_worker_reports_it_at_once_and_the_others_soon(pod: Pod) -> None:
    victim = pod.pids()[0]
    began = time.monotonic()
    order = pod.tell("drain", victim)
    try:
        own = eventually(lambda: [text for _, text, pid in pod.answers() if pid == victim], 2.0)
        assert "is draining" in own[0]
        seen_by_all_others(pod, f"(pid {victim}) is draining", 3.0, began)
    finally:
        order.unlink()
    eventually(pod.is_ready, 5.0)


def test_a_silent_canary_in_one_worker_makes_the_pod_unready(pod: Pod) -> None:
    victim = pod.pids()[0]
    began = time.monotonic()
    order = pod.tell("mute", victim)
    try:
        seen_by_all_others(pod, f"(pid {victim}) has delivered no event for", 4.5, began)
        assert {pod.status("/healthz") for _ in range(8)} == {200}
    finally:
        order.unlink()
    eventually(pod.is_ready, 5.0)


def test_a_killed_worker_is_noticed_and_replaced_and_its_counters_stay(pod: Pod) -> None:
    eventually(lambda: pod.metric("sse_streams_opened_total") >= 200, 5.0)
    before = pod.metric("sse_streams_opened_total")
    streams = pod.metric('sse_streams{state="live"}')
    victim = pod.pids()[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: pod.status() == 503, 3.0, interval=0.01)
    eventually(pod.is_ready, 8.0)
    assert victim not in pod.pids()
    eventually(lambda: pod.metric("sse_streams_opened_total") == before + 100, 5.0)
    assert pod.metric('sse_streams{state="live"}') == streams, "a dead worker's gauges disappear"
    assert "Traceback" not in (pod.directory / "log").read_text()


def test_after_a_reload_old_workers_that_drain_do_not_count(pod: Pod) -> None:
    old = pod.pids()
    for pid in old:
        pod.tell("drain", pid)
    # A stopped worker cannot end, so it seems to drain for long.
    os.kill(old[0], signal.SIGSTOP)
    pod.process.send_signal(signal.SIGHUP)
    try:
        eventually(lambda: (pids := pod.pids()) and not set(pids) & set(old) and pod.is_ready(), 10.0, interval=0.1)
        os.kill(old[0], 0)  # it has not ended
    finally:
        os.kill(old[0], signal.SIGCONT)


def test_the_expected_number_of_workers_follows_ttin_and_ttou(pod: Pod) -> None:
    pod.process.send_signal(signal.SIGTTIN)
    eventually(lambda: pod.metric("health_workers_expected") == 3, 5.0)
    eventually(lambda: pod.metric('health_workers{state="running"}') == 3 and pod.status() == 200, 8.0)
    pod.process.send_signal(signal.SIGTTOU)
    eventually(lambda: pod.metric("health_workers_expected") == 2, 5.0)
    eventually(pod.is_ready, 8.0)


def test_the_metrics_directory_is_removed_at_the_end(tmp_path: Path) -> None:
    before = {path.name for path in Path("/dev/shm").glob("headwater-metrics-*")}
    pod = Pod(tmp_path, workers=1, worker_class="gthread")
    try:
        pod.wait_ready()
        file = f"counter_sse-{pod.pids()[0]}.db"
        found = eventually(lambda: list(Path("/dev/shm").glob(f"headwater-metrics-*/{file}")), 5.0)
        ours = found[0].parent
        assert ours.name not in before
    finally:
        pod.close()
    assert not ours.exists()
