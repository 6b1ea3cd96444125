"""Servers on which a stream would hold one of few threads, or the only one: what they say, and what they refuse."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.other_servers import (
    FLASK,
    FLASK_ALONE,
    GEVENT,
    GTHREAD,
    GTHREAD_ALONE,
    OURS,
    STARVING,
    STOCK,
    SYNC,
    UWSGI,
    UWSGI_ALONE,
    WAITRESS,
    start,
)
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

# What the warning says of each server: its name, and what it can hold.
SAID = {
    SYNC: "gunicorn's sync worker answers one request at a time, so streams are refused here (503)",
    GTHREAD_ALONE: "gunicorn's gthread worker has 1 thread in a process",
    WAITRESS: "waitress has 4 threads",
    FLASK_ALONE: "Flask's development server answers one request at a time",
    UWSGI_ALONE: "uWSGI has 1 thread in a process",
    GTHREAD: "gunicorn's gthread worker holds one of its 4 threads for each stream, and 2 are kept free, so a process "
    "holds at most 2 streams",
    UWSGI: "uWSGI holds one of its 4 threads for each stream, and 2 are kept free, so a process holds at most 2 streams",
    GEVENT: "gunicorn's gevent worker holds a greenlet for each stream, and notices late that a client has left, so a "
    "process holds at most 998 streams",
    FLASK: "Flask's development server holds a thread for each stream",
}
ADVICE = "gunicorn -k sse.worker.SSEWorker MODULE:APP (docs/own-app.md)"


def warnings_in(server: Server, kind: str) -> list[str]:
    return [line for line in server.log_text().splitlines() if SAID[kind] in line]


@pytest.fixture(scope="module", params=STARVING)
def starving(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    with closing(start(request.param, hooks=False)) as server:
        yield request.param, server


@pytest.mark.parametrize("target", ["/events/a", "/events?channel=a&channel=b"])
def test_a_stream_is_refused_at_once_with_the_reason(target: str, starving: tuple[str, Server]) -> None:
    kind, server = starving
    for _ in range(6):  # more than any of these has threads
        answer = server.request("GET", target, timeout=5)
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
        told = answer.json()
        assert SAID[kind] in told["detail"] and ADVICE in told["detail"] and "streams are refused" in told["detail"]
        assert told["title"] == "Service Unavailable" and told["server"] in SAID[kind]
        assert "Retry-After" not in answer.headers, "it would be refused again"
    assert len(warnings_in(server, kind)) == 1


def test_everything_else_works(starving: tuple[str, Server]) -> None:
    _, server = starving
    for number in range(5):
        server.publish("a", f"{number}")
    assert server.request("HEAD", "/events/a").status == 200
    assert server.request("GET", "/healthz").status == 200


@pytest.mark.parametrize("kind", [SYNC, FLASK_ALONE, WAITRESS])
def test_a_view_that_streams_is_refused_too(kind: str) -> None:
    with closing(start(kind, "tests.live.response_app:app")) as server:
        answer = server.request("GET", "/count/3", timeout=5)
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert "answers one request at a time" in answer.text or "waitress" in answer.text


@pytest.mark.parametrize("hooks", [True, False], ids=["our hook", "no hook"])
@pytest.mark.parametrize("kind", [GTHREAD, GEVENT, SYNC])
def test_a_worker_of_gunicorns_says_it_at_the_start_once(kind: str, hooks: bool) -> None:
    with closing(start(kind, hooks=hooks)) as server:
        assert len(warnings_in(server, kind)) == 1
        for _ in range(2):
            server.request("GET", "/events/-")  # refused
        if kind != SYNC:
            for _ in range(2):
                with SSEClient(server.port, "/events/a") as client:
                    assert client.next_event().is_opening
        assert len(warnings_in(server, kind)) == 1


@pytest.mark.parametrize("kind", [FLASK, UWSGI])
def test_the_first_stream_says_it_once(kind: str) -> None:
    with closing(start(kind)) as server:
        server.publish("a", "x")
        early = len(warnings_in(server, kind))
        assert early == (kind == UWSGI)
        for _ in range(2):
            with SSEClient(server.port, "/events/a") as client:
                assert client.next_event().is_opening
        eventually(lambda: len(warnings_in(server, kind)) == 1)


def test_our_own_worker_says_nothing() -> None:
    with closing(start(OURS)) as server, SSEClient(server.port, "/events/a") as client:
        assert client.next_event().is_opening
        assert "docs/own-app.md" not in server.log_text()


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        pytest.param(GTHREAD, ("--workers", "2"), id="gunicorn without our hook"),
        pytest.param(SYNC, ("--workers", "2"), id="the sync worker"),
        pytest.param(UWSGI, ("--processes", "2"), id="uWSGI"),
        pytest.param(UWSGI, ("--processes", "2", "--lazy-apps"), id="uWSGI with lazy apps"),
    ],
)
def test_several_processes_with_a_log_in_memory_do_not_start(kind: str, args: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match="it ended") as refused:
        start(kind, "wsgi:app", *args, hooks=False, SSE_LOG="memory:")
    assert "SSE_LOG=memory: allows one worker, but there are 2" in str(refused.value)


def test_processes_that_the_app_does_not_know_when_it_is_loaded_are_never_ready() -> None:
    """With ``--preload`` the app is loaded before gunicorn tells how many workers there are."""
    args = ("--preload", "--workers", "2")
    server = Server(*args, command=(*STOCK, "wsgi:app"), STOCK_WORKER=GTHREAD, SSE_LOG="memory:", SSE_AUTH="none")
    with closing(server):
        server.start(ready=False)
        server.wait_for_log("Booting worker", 20)
        assert server.request("GET", "/readyz", timeout=20).status == 503
        server.wait_for_log("SSE_LOG=memory: allows one worker, but there are 2", 20)


def test_a_worker_added_by_a_signal_uses_no_log_of_its_own() -> None:
    """Nobody but the new worker can know; it refuses, and the first one works on."""
    with closing(start(GTHREAD, hooks=False, SSE_LOG="memory:")) as server:
        server.publish("a", "first")
        server.signal(signal.SIGTTIN)
        eventually(lambda: len(server.worker_pids()) == 2, 5)
        seen: dict[int, int] = {}
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            status = server.request("POST", "/events/a", b"x").status
            seen[status] = seen.get(status, 0) + 1
        assert set(seen) == {201, 500}
        assert "SSE_LOG=memory: allows one worker, but there are 2 (the signal TTIN)" in server.log_text()


def test_under_uwsgi_each_process_has_its_own_log_though_the_app_published_before_the_fork(tmp_path: Path) -> None:
    """uWSGI forks without Python's hooks for it."""
    (tmp_path / "early.py").write_text(
        "from flask import Flask\n"
        "from sse import SSE\n"
        "app = Flask('early')\n"
        f"app.config.update(SSE_LOG='sqlite:///{tmp_path}/h.db', SSE_AUTH='none')\n"
        "sse = SSE(app)\n"
        "sse.publish('a', 'while it is loaded')\n"
    )
    args = ("--pythonpath", str(tmp_path), "--processes", "2")
    with closing(start(UWSGI, "early:app", *args)) as server, SSEClient(server.port, "/events/a?since=earliest") as client:
        assert client.next_message().data == "while it is loaded"
        for number in range(20):
            assert server.publish("a", json.dumps(number))
        assert [client.next_message().data for _ in range(20)] == [str(number) for number in range(20)]
