"""``headwater serve`` and ``gunicorn -c python:headwater.gunicorn_conf``, from the installed package."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import simple_websocket

from sse.version import VERSION
from tests.support.configmap import ConfigMapVolume
from tests.support.package import Installed
from tests.support.redis_server import RedisServer
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

SHOP = Path(__file__).parent / "shop"

Serve = Callable[..., Server]


@pytest.fixture
def serve(installed: Installed, tmp_path: Path) -> Iterator[Serve]:
    """``serve("serve", "--app", …)``: the command in an empty folder, ended with the test."""
    servers = []

    def start(*words: str, program: str = "headwater", ready: bool = True, **env: str | float | None) -> Server:
        quick: dict[str, str | float | None] = {"SSE_DRAIN_DELAY": 0, "SSE_DRAIN_WINDOW": 0, **env}
        server = Server(command=(str(installed.bin / program), *words), cwd=tmp_path, **quick)
        servers.append(server)
        return server.start(ready=ready)

    yield start
    for server in servers:
        server.close()


def test_the_service_runs_and_says_its_version(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.py").write_text("1 / 0  # somebody's own, in the working directory\n")
    server = serve("serve", SSE_LOG=None)
    with SSEClient(server.port, "/events/orders") as client:
        client.next_event()
        seen = server.publish("orders", "tea", "?event=created")
        assert (client.next_message().id, (tmp_path / "var" / "headwater.db").exists()) == (seen, True)
    assert server.request("GET", "/openapi.json").json()["info"]["version"] == VERSION
    assert f'version="{VERSION}"' in server.request("GET", "/metrics", port=server.health_port).text
    assert "<title>" in server.request("GET", "/").text
    server.wait_for_log("Using worker: headwater.sse.worker.SSEWorker")
    server.terminate()
    assert server.wait() == 0


@contextmanager
def ordering(server: Server) -> Iterator[None]:
    """Tea is ordered again and again: Flask-SSE keeps nothing for a stream that opens a moment later."""
    over = threading.Event()

    def order() -> None:
        while not over.wait(0.1):
            server.request("POST", "/orders", "tea")

    thread = threading.Thread(target=order)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("program", "words", "env"),
    [
        pytest.param("headwater", ("serve", "--app", "shop"), {}, id="headwater serve"),
        pytest.param("headwater", ("serve", "--app", "shop:create_app()"), {"SHOP_FACTORY": "1"}, id="a factory"),
        pytest.param("python", ("-m", "gunicorn", "-c", "python:headwater.gunicorn_conf", "shop:app"), {}, id="gunicorn"),
    ],
)
def test_an_app_of_ones_own_keeps_its_modules_its_pages_and_its_other_extensions(
    program: str, words: tuple[str, ...], env: dict[str, str], serve: Serve, tmp_path: Path
) -> None:
    shutil.copytree(SHOP, tmp_path, dirs_exist_ok=True)
    with RedisServer() as redis:
        server = serve(*words, program=program, SHOP_REDIS=redis.url, **env)
        assert server.request("GET", "/events").text == "sse health settings"
        with SSEClient(server.port, "/events/orders") as ours, ordering(server):
            ours.next_event()
            assert ours.next_message().data == "tea"
            with SSEClient(server.port, "/stream") as theirs:
                assert theirs.next_message().data == '{"by": "flask-sse"}'
        socket = simple_websocket.Client(f"ws://127.0.0.1:{server.port}/echo")
        socket.send("tea")
        assert socket.receive(5) == "TEA"
        socket.close()
        eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 200, 20, server.log_tail)
        assert server.request("POST", "/events/orders", "tea", port=server.health_port).status == 404
    server.wait_for_log("Using worker: headwater.sse.worker.SSEWorker")


def test_a_reload_reads_the_settings_again(serve: Serve, tmp_path: Path) -> None:
    volume = ConfigMapVolume(tmp_path / "settings", "WEB_CONCURRENCY=1")
    server = serve("serve", SSE_CONFIG_FILE=volume.file)

    def reloaded_with(count: int) -> None:
        before = set(server.worker_pids())
        volume.write(f"WEB_CONCURRENCY={count}")
        server.signal(signal.SIGHUP)

        def ready() -> bool:
            workers = server.worker_pids()
            if len(workers) != count or before & set(workers):
                return False
            return server.request("GET", "/readyz", port=server.health_port).status == 200

        eventually(ready, 20, server.log_tail)

    reloaded_with(2)
    reloaded_with(3)  # the second time, too


def test_gunicorns_own_options_follow_after_two_dashes(serve: Serve) -> None:
    server = serve("serve", "--", "--workers", "2", ready=False)
    eventually(lambda: len(server.worker_pids()) == 2, 20, server.log_tail)


def test_bad_settings_end_it_with_a_line_each_and_status_2(serve: Serve) -> None:
    server = serve("serve", ready=False, PORT="70000", SSE_RETRY="soon", LOG_FORMAT="text")
    assert server.wait(20) == 2
    first, second = server.log_text().splitlines()
    assert first == "headwater: PORT='70000' cannot be used: it must be a whole number from 0 to 65535"
    assert second.startswith("headwater: SSE_RETRY='soon' cannot be used")


def test_an_app_that_is_not_there_ends_it(serve: Serve) -> None:
    server = serve("serve", "--app", "nothing:app", ready=False)
    assert server.wait(20) == 3 and "No module named 'nothing'" in server.log_text()
