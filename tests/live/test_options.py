"""gunicorn with other callables and options than ours: the extension still learns what it needs to know."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.server import COMMAND, Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.wait import eventually

OpenStream = Callable[..., SSEClient]


@contextmanager
def bare(callable_: str, *args: str, start: bool = True, **env: Any) -> Iterator[Server]:
    """Start somebody's own app under gunicorn, without our configuration file."""
    command = (sys.executable, "-m", "gunicorn", "-c", "tests/live/bare.conf.py", f"tests.live.wrapped_app:{callable_}()", *args)
    server = Server(command=command, **{"SSE_LOG": None, **env})
    try:
        server.start(ready=False)
        if start:
            eventually(lambda: _answers(server), 20, lambda: f"it does not answer:\n{server.log_tail()}")
        yield server
    finally:
        server.close()


def _answers(server: Server) -> bool:
    assert server.process.poll() is None, f"it ended:\n{server.log_tail()}"
    try:
        return bool(server.request("GET", "/", timeout=2).status)
    except OSError:
        return False


# ── what stands around the app ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("callable_", "mounts"),
    [("create_app", [""]), ("proxied", [""]), ("closure", [""]), ("lazy", [""]), ("mounted", ["/live"]), ("two", ["", "/live"])],
)
def test_the_extension_is_found_behind_each_kind_of_wrapper(
    callable_: str, mounts: list[str], open_stream: OpenStream
) -> None:
    with bare(callable_) as server:
        clients = []
        for mount in mounts:
            # Without a key: only from here, which the extension must have been told.
            assert server.request("POST", f"{mount}/events/a", body=b"x").status == 201
            for target in ("/events/a", "/own"):
                clients.append(open_stream(server, mount + target))
                clients[-1].next_event()
        began = time.monotonic()
        server.terminate()
        for client in clients:
            client.read_to_end(8)
            assert client.ending is Ending.TERMINATED, "it ends by the drain, with a retry:"
        assert server.wait(10) == 0
        assert time.monotonic() - began < 8
        assert "connections cut" not in server.log_text()


def test_middleware_installed_before_the_extension_runs_first() -> None:
    with bare("guarded") as server:
        password = {"Authorization": "Basic eDp5"}
        for _ in range(2):
            for method, body in (("POST", b"x"), ("HEAD", None)):
                assert server.request(method, "/events/secret", body).status == 401
                assert server.request(method, "/events/secret", body, password).status in (200, 201)


# ── more workers than a log in memory can have ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", ["argument", "environment", "own app"])
def test_several_workers_with_a_log_in_memory_are_refused_however_configured(way: str) -> None:
    env: dict[str, Any] = {"GUNICORN_CMD_ARGS": "--workers=2"} if way == "environment" else {}
    args = () if way == "environment" else ("--workers", "2")
    if way == "own app":
        with bare("create_app", *args, start=False) as server:
            status = server.wait(15)
            log = server.log_text()
    else:
        server = Server(*args, command=COMMAND, SSE_LOG="memory:", **env)
        try:
            server.start(ready=False)
            status = server.wait(15)
            log = server.log_text()
        finally:
            server.close()
    assert status == 3
    assert "cannot start: SSE_LOG=memory: allows one worker, but there are 2" in log
    assert "Traceback" not in log


def test_a_worker_added_beside_a_log_in_memory_is_refused(open_stream: OpenStream) -> None:
    with bare("create_app") as server:
        (worker,) = server.worker_pids()
        client = open_stream(server, "/events/a")
        client.next_event()
        for turn in range(2):
            server.signal(signal.SIGTTIN)
            eventually(lambda: server.log_text().count("SIGTTIN is ignored: SSE_LOG=memory:") == turn + 1, 5)  # noqa: B023
            eventually(lambda: server.worker_pids() == [worker], 5, "the wrong one is left, or both")
        for number in range(5):
            server.publish("a", f"{number}")
            assert client.next_message().data == f"{number}"
        # Nor does the master believe that it has two: a worker that dies is replaced by one.
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: len(server.worker_pids()) == 1 and server.worker_pids() != [worker], 10)


def test_a_worker_added_before_the_first_has_loaded_its_app_is_refused_too(tmp_path: Any) -> None:
    sign = tmp_path / "load"
    with bare("create_app", start=False, LOADED_WHEN=str(sign)) as server:
        server.wait_for_log("Booting worker", 15)
        server.signal(signal.SIGTTIN)
        eventually(lambda: server.log_text().count("Booting worker") == 2, 10)
        sign.touch()
        server.wait_for_log("SIGTTIN is ignored: SSE_LOG=memory:", 15)
        eventually(lambda: len(server.worker_pids()) == 1 and _answers(server), 10)
        assert server.request("POST", "/events/a", body=b"x").status == 201
        assert server.process.poll() is None


def test_a_worker_can_be_added_beside_a_shared_log(tmp_path: Any) -> None:
    with bare("create_app", FLASK_SSE_LOG=f"sqlite:///{tmp_path}/h.db") as server:
        server.signal(signal.SIGTTIN)
        eventually(lambda: server.log_text().count("loaded in") == 2 or "no further" in server.log_text(), 10)
        assert len(server.worker_pids()) == 2 and "SIGTTIN is ignored" not in server.log_text()


def test_several_of_gunicorns_own_workers_refuse_a_log_in_memory() -> None:
    """With ``--preload`` the app is loaded before gunicorn tells how many workers there are; else it does not start."""
    with bare("create_app", "--preload", "--workers", "2", WORKER="gthread", FLASK_SSE_AUTH="none") as server:
        for method, target, body in (("POST", "/events/a", b"x"), ("GET", "/events/a", None)):
            answer = server.request(method, target, body)
            assert (answer.status, answer.json()["detail"]) == (
                500,
                "SSE_LOG=memory: is for one process, and this server has several",
            )


# ── options ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_worker_serves_an_app_that_publishes_during_preload(tmp_path: Any) -> None:
    options = {"FLASK_SSE_LOG": f"sqlite:///{tmp_path}/h.db", "AT_IMPORT": "1"}
    with bare("create_app", "--preload", "--workers", "2", **options) as server:
        ids = {server.publish("a", f"{number}") for number in range(20)}
        assert len(ids) == 20
        with SSEClient(server.port, "/events/a?since=earliest") as client:
            found = [client.next_message().data for _ in range(21)]
        assert found == ["the app is loaded", *(f"{number}" for number in range(20))]


def test_events_published_to_memory_during_preload_are_kept() -> None:
    with bare("create_app", "--preload", AT_IMPORT="1") as server:
        with SSEClient(server.port, "/events/a?since=earliest") as client:
            assert client.next_message().data == "the app is loaded"
            server.publish("a", "more")
            assert client.next_message().data == "more"


def test_the_log_says_once_that_max_requests_is_ignored() -> None:
    with bare("create_app", "--max-requests", "2") as server:
        (worker,) = server.worker_pids()
        for _ in range(5):
            server.publish("a", "x")
        assert server.worker_pids() == [worker]
        assert server.log_text().count("max_requests=2 is ignored") == 1
