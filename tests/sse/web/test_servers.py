"""Which server a request came to, and what is said of it. tests/live/test_starving_servers.py runs real ones."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from sse.observe.environ import HUNG_UP
from sse.web import servers
from sse.web.problems import Problem

THREADS = {"wsgi.multithread": True}


def test_a_test_client_and_our_own_worker_are_no_strange_servers() -> None:
    assert servers.server_of(EnvironBuilder().get_environ()) is None
    assert servers.server_of({"SERVER_SOFTWARE": "gunicorn/27.0.1", HUNG_UP: lambda: False}) is None
    assert servers.running_server() is None


@pytest.mark.parametrize(
    ("environ", "name", "streams"),
    [
        pytest.param({"SERVER_SOFTWARE": "Cheroot/10.0", **THREADS}, "Cheroot", None, id="with threads"),
        pytest.param({"SERVER_SOFTWARE": "Other"}, "Other", 0, id="without threads"),
        pytest.param({"SERVER_SOFTWARE": "CGI", "wsgi.run_once": True, **THREADS}, "CGI", 0, id="a process for each request"),
        pytest.param({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, "gunicorn", 0, id="a worker of gunicorn's that is not found"),
        pytest.param({"SERVER_SOFTWARE": "gunicorn/27.0.1", **THREADS}, "gunicorn", None, id="the same with threads"),
        pytest.param({"SERVER_SOFTWARE": "Werkzeug/3.1", **THREADS}, "Flask's development server", None, id="flask run"),
        pytest.param(
            {"SERVER_SOFTWARE": "gevent/20.0 Python/3.11"}, "gevent's server without gevent's patches", 0, id="pywsgi, not patched"
        ),
    ],
)
def test_a_server_is_known_by_what_it_says(environ: dict[str, Any], name: str, streams: int | None) -> None:
    found = servers.server_of(environ)
    assert found is not None and (found.name, found.streams) == (name, streams)


def test_a_server_with_greenlets_has_no_fixed_number_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "cooperative", lambda: True)
    found = servers.server_of({"SERVER_SOFTWARE": "gevent/20.0 Python/3.11"})
    assert found is not None and found.streams is None and "greenlet" in found.warning


def test_waitress_is_refused_whatever_its_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait, name=f"waitress-{n}") for n in range(9)]
    for thread in threads:
        thread.start()
    try:
        with pytest.raises(Problem, match="waitress has 9 threads") as refused:
            servers.refuse_or_warn({"SERVER_SOFTWARE": "waitress", **THREADS})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert refused.value.status == 503


def test_a_server_is_warned_of_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(servers, "_said", set())
    environ = {"SERVER_SOFTWARE": "Cheroot/10.0", **THREADS}
    with caplog.at_level(logging.WARNING, "headwater.server"):
        assert [servers.refuse_or_warn(environ) for _ in range(3)] == [None] * 3
    (line,) = caplog.messages
    assert line.startswith("Cheroot holds a thread for each stream, so the streams that it can hold are few. For streams use")


@pytest.mark.parametrize("url", ["memory:", "sqlite:////tmp/h.db"])
def test_one_process_may_have_any_log(url: str) -> None:
    servers.refuse_company(url)
    servers.refuse_company(url, now=True)
