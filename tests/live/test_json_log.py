"""Every line of a JSON log is JSON, whatever happens: a log collector stops at the first one that is not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.sse.log.children import start
from tests.support.redis_server import RedisServer
from tests.support.server import COMMAND, Server, ServerFailed
from tests.support.wait import eventually


def lines(server: Server) -> list[dict[str, Any]]:
    """Return all lines of the log; each must be JSON."""
    found = []
    for line in server.log_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pytest.fail(f"not JSON: {line!r}\n{server.log_tail()}")
    return found


def refused_start(server: Server, status: int) -> dict[str, Any]:
    """Return the one error of a refused start, which must end gunicorn with this status."""
    try:
        with pytest.raises(ServerFailed, match=f"it ended with status {status}"):
            server.start()
        (error,) = [line for line in lines(server) if "cannot start" in line["message"]]
        assert not [line for line in lines(server) if "traceback" in line and line != error]
        return error
    finally:
        server.close()


def test_a_redis_outage_is_logged_as_json_without_tracebacks() -> None:
    with RedisServer() as redis, Server(SSE_LOG=redis.url, LOG_FORMAT="json", SSE_HEARTBEAT=0.2) as server:

        def publish() -> int:
            return server.request("POST", "/events/a", b"x", {"Idempotency-Key": "k"}).status

        assert publish() == 201
        for _ in range(2):
            redis.kill()
            eventually(lambda: publish() == 503)
            # What works in threads meets the outage, too: trimming, and the bounds for a cursor that only the log
            # knows.
            server.request("GET", "/events/a?since=1", timeout=5)
            eventually(lambda: "cannot be followed" in server.log_text())
            batch = b"\n".join([b'{"channel":"a","data":"x"}'] * 200)
            answer = server.request("POST", "/events", batch, {"Content-Type": "application/x-ndjson"})
            assert answer.status == 503
            redis.start()
            eventually(lambda: publish() == 201, 10)
        server.terminate()
        assert server.wait() == 0
        told = lines(server)
        assert any("cannot be followed" in line["message"] for line in told)
        assert not [line for line in told if "traceback" in line]


def test_a_damaged_file_refuses_the_start_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"no database" * 100)
    error = refused_start(Server(SSE_LOG=f"sqlite:///{path}", LOG_FORMAT="json"), 3)
    assert error["level"] == "error" and f"{path}: damaged" in error["message"] and "traceback" not in error


def test_an_unsuitable_redis_refuses_the_start_with_one_line() -> None:
    with RedisServer(maxmemory="100mb", maxmemory_policy="allkeys-lru") as redis:
        error = refused_start(Server(SSE_LOG=redis.url, LOG_FORMAT="json"), 3)
    assert "may evict" in error["message"] and "traceback" not in error


@pytest.mark.parametrize(
    ("app", "status", "traceback"),
    [
        pytest.param("wsgi:nothing", 4, False, id="no such app"),
        pytest.param("tests.live.no_such_module:app", 3, True, id="a module that cannot be imported"),
    ],
)
def test_an_app_that_cannot_be_loaded_refuses_the_start(app: str, status: int, traceback: bool) -> None:
    error = refused_start(Server(command=(*COMMAND[:-1], app), LOG_FORMAT="json"), status)
    assert ("traceback" in error) == traceback


def test_gunicorns_own_workers_refuse_the_start_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"no database" * 100)
    error = refused_start(Server("-k", "gthread", SSE_LOG=f"sqlite:///{path}", LOG_FORMAT="json"), 3)
    assert f"{path}: damaged" in error["message"] and "traceback" not in error


@pytest.mark.parametrize("form", ["json", "text"])
def test_invalid_settings_are_reported_in_the_logs_format(form: str) -> None:
    ended = subprocess.run(
        COMMAND,
        env={"PATH": os.environ["PATH"], "LOG_FORMAT": form, "PORT": "70000", "SSE_HARTBEAT": "5"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    slip, refused = ended.stderr.splitlines()
    if form == "json":
        slip, refused = (json.loads(line) for line in (slip, refused))
        assert (slip["level"], refused["level"]) == ("warning", "error")
        slip, refused = slip["message"], refused["message"]
    assert "SSE_HARTBEAT" in slip and "PORT='70000' cannot be used" in refused


def test_a_failure_in_a_background_greenlet_or_thread_is_logged_as_json() -> None:
    with Server(command=(*COMMAND[:-1], "tests.live.careless_app:app"), LOG_FORMAT="json") as server:
        assert server.request("GET", "/fail").status == 200
        told = lines(server)
    for where in ("a greenlet", "a thread"):
        (line,) = [line for line in told if f"told to fail in {where}" in line.get("traceback", "")]
        assert line["level"] == "error" and line["logger"] == "headwater"
    assert [line for line in told if "told to warn" in line["message"]]


# What Python and gevent print where nobody handles an exception, in each place that has a printer of its own.
UNHANDLED = """
import sys
from gevent import monkey; monkey.patch_all()
import logging.config, threading, warnings
import gevent
from sse.observe import logging as logs
from sse.settings import Settings
logging.config.dictConfig(logs.config(Settings.from_mapping({"LOG_FORMAT": "json"})))
logs.capture()

def fail():
    raise ValueError("told to fail\\n\\udc80")

class Careless:
    def __del__(self):
        fail()

gevent.spawn(fail).join()
thread = threading.Thread(target=fail, name="careless")
thread.start()
thread.join()
gevent.get_hub().threadpool.spawn(fail).wait()
Careless()
warnings.warn("told to warn")
logging.getLogger("library").warning("%d of %d", "one")
fail()
"""


def test_an_unhandled_exception_is_logged_and_not_printed() -> None:
    with start(UNHANDLED, stderr=subprocess.STDOUT) as child:
        output, _ = child.communicate(timeout=20)
    assert child.returncode == 1
    told = [json.loads(line) for line in output.splitlines()]
    where = [line["message"].rpartition(" in ")[2] for line in told if "told to fail" in line.get("traceback", "")]
    assert len(where) == 5, told
    assert "thread careless" in where and where[-1] == "the main thread"
    assert [line for line in told if "told to warn" in line["message"] and line["logger"] == "py.warnings"]
    assert [line for line in told if line["message"] == "%d of %d ('one',)"]


def test_an_exception_in_the_thread_pool_reaches_the_caller_and_is_not_printed() -> None:
    with start(OFFLOADED, stderr=subprocess.STDOUT) as child:
        output, _ = child.communicate(timeout=20)
    assert output.splitlines() == ["['told to fail', 'fail', 'work'] True"]


OFFLOADED = """
from gevent import monkey; monkey.patch_all()
import gc, time, traceback, weakref
from sse.runtime.cooperation import offload

class Held: pass

def fail():
    raise ValueError("told to fail")

def work(held):
    fail()

def caller():
    held = Held()
    try:
        offload(work, held)
    except ValueError as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return weakref.ref(held), [str(error), names[-1], names[-2]]

gc.disable()
held, told = caller()
for _ in range(200):  # the pool's thread lets go when it looks for its next task
    if held() is None:
        break
    time.sleep(0.01)
print(told, held() is None)
"""
