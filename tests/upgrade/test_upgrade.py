"""An upgrade, and its rollback, under load: docs/upgrade.md's order, with the service of an earlier commit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.k8s.nginx import Nginx
from tests.support import ledger
from tests.support.publisher import Publishers
from tests.support.redis_server import RedisServer
from tests.support.resuming_client import ResumingClient
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually
from tests.upgrade.earlier import OLDEST, PREVIOUS, Earlier, checked_out

CLIENTS = 6
#: Behind nginx nobody publishes "directly from this machine".
OPEN = {"SSE_AUTH": "none", "SSE_RETRY": 200, "SSE_DRAIN_DELAY": 1, "SSE_DRAIN_WINDOW": 1}


@contextlib.contextmanager
def under_load(port: int) -> Iterator[Callable[[], None]]:
    """Publish and read through ``port``; at the end check that every reader got everything once, in order.

    Yields a function that waits until more has been published and read.
    """
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(ResumingClient(port, "/events/a", timeout=30)) for _ in range(CLIENTS)]
        for client in clients:
            client.wait_connected(10)
        begins = [client.last_event_id for client in clients]
        publishers = stack.enter_context(Publishers(port))

        def progress() -> None:
            publishers.wait_progress()
            goal = max(len(client.ledger) for client in clients) + 20
            eventually(lambda: all(len(client.ledger) >= goal for client in clients), 20)

        progress()
        yield progress
        published = publishers.stop()
        last = published[-1].id
        for client, begin in zip(clients, begins, strict=True):
            client.wait_for(lambda client: last in client.ids[-50:], 20)
            assert begin is not None and client.failed is None and client.resets == []
            ledger.check(client.ids, ledger.owed(published, begin), client)
        assert sum(client.reconnects for client in clients) >= CLIENTS, "every stream was on a pod that went"


def replace(nginx: Nginx, pods: list[Server], new: Server) -> None:
    """Replace the oldest pod as a Deployment does: the new one is ready first, the old one leaves while it drains."""
    new.start()
    nginx.serve([pod.port for pod in (*pods, new)])
    old = pods.pop(0)
    pods.append(new)
    old.terminate()
    nginx.serve([pod.port for pod in pods])
    assert old.wait(20) == 0, old.log_tail()


@pytest.mark.parametrize(
    ("earlier", "back"),
    [
        pytest.param(PREVIOUS, False, id="from the previous"),
        pytest.param(PREVIOUS, True, id="from the previous and back", marks=pytest.mark.slow),
        pytest.param(OLDEST, True, id="from the oldest and back", marks=pytest.mark.slow),
    ],
)
def test_two_pods_are_replaced_under_load_without_a_loss(earlier: Earlier, back: bool, tmp_path: Path) -> None:
    code = checked_out(earlier, tmp_path / "code")
    (tmp_path / "nginx").mkdir()
    with RedisServer() as redis, contextlib.ExitStack() as stack:
        env = OPEN | {"SSE_LOG": redis.url}

        def pod(cwd: Path = ROOT) -> Server:
            server = Server(cwd=cwd, **env)
            stack.callback(server.close)
            return server

        pods = [pod(code).start(), pod(code).start()]
        nginx = stack.enter_context(Nginx(tmp_path / "nginx")).start([one.port for one in pods])
        with under_load(nginx.port) as progress:
            for cwd in (ROOT, ROOT, code, code) if back else (ROOT, ROOT):
                replace(nginx, pods, pod(cwd))
                progress()


def test_one_service_with_a_file_is_upgraded_in_place_under_load(tmp_path: Path) -> None:
    """The old one ends before the new one starts. Publishers repeat with their keys, readers resume."""
    code = checked_out(PREVIOUS, tmp_path / "code")
    env = OPEN | {"SSE_LOG": f"sqlite:///{tmp_path}/h.db", "SSE_DRAIN_DELAY": 0}
    (tmp_path / "nginx").mkdir()
    with Nginx(tmp_path / "nginx") as nginx, contextlib.ExitStack() as stack:
        old = stack.enter_context(Server(cwd=code, **env))
        nginx.start([old.port])
        with under_load(nginx.port) as progress:
            old.terminate()
            assert old.wait(20) == 0
            stack.enter_context(Server(**env | {"PORT": old.port}))
            progress()


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
@pytest.mark.parametrize("earlier", [pytest.param(OLDEST, id="oldest"), pytest.param(PREVIOUS, id="previous")])
def test_the_log_of_an_earlier_version_is_read_and_resumed(earlier: Earlier, engine: str, tmp_path: Path) -> None:
    code = checked_out(earlier, tmp_path / "code")
    with contextlib.ExitStack() as stack:
        where = f"sqlite:///{tmp_path}/h.db" if engine == "sqlite" else stack.enter_context(RedisServer()).url
        with Server(cwd=code, SSE_LOG=where, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as old:
            names = [old.publish("orders", f"{number}") for number in range(20)]
            keyed = old.publish("orders", "once", Idempotency_Key="k")
        new = stack.enter_context(Server(SSE_LOG=where))
        if earlier is not OLDEST:  # the oldest kept keys in another form, which are forgotten
            assert new.publish("orders", "once", Idempotency_Key="k") == keyed
        later = new.publish("orders", "later")
        with SSEClient(new.port, "/events/orders", last_event_id=names[4]) as client:
            seen = [client.next_message() for _ in range(17)]
        assert [one.id for one in seen] == [*names[5:], keyed, later]
        assert seen[0].data == "5"
