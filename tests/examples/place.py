"""The examples, as a user starts them, and where their browsers connect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.k8s.nginx import Nginx
from tests.live.other_servers import OURS, restart, start
from tests.support.server import Server

# Short, because the tests wait for drains.
SETTINGS: dict[str, str | float] = {
    "SSE_RETRY": 200,
    "SSE_DRAIN_DELAY": 0.2,
    "SSE_DRAIN_WINDOW": 0.3,
    "SSE_RUN_GRACE": 20,
    "SSE_AUTH": "none",
    "SSE_TRUSTED_PROXIES": "127.0.0.1",
}


class Pods:
    """Two instances of an example on one log, behind nginx, which sends all requests to the first until it leaves."""

    def __init__(self, servers: list[Server], nginx: Nginx) -> None:
        self.servers = servers
        self._nginx = nginx

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._nginx.port}"

    @property
    def port(self) -> int:
        return self._nginx.port

    @contextlib.contextmanager
    def leaving(self) -> Iterator[Callable[[], None]]:
        """Yield a function that lets the first end as a pod does in a rollout: out of the endpoints, then SIGTERM."""
        leaving, staying = self.servers

        def leave() -> None:
            self._nginx.serve([staying.port])
            leaving.terminate()

        yield leave
        leaving.wait(30)
        restart(leaving)
        self._nginx.serve([leaving.port])

    @contextlib.contextmanager
    def dying(self) -> Iterator[Callable[[], None]]:
        """Yield a function that kills the first (``kill -9``)."""
        dying, staying = self.servers

        def die() -> None:
            self._nginx.serve([staying.port])
            dying.kill()

        yield die
        restart(dying)
        self._nginx.serve([dying.port])


@contextlib.contextmanager
def one(example: str, directory: Path, kind: str = OURS) -> Iterator[Server]:
    """Run one instance of an example."""
    with contextlib.closing(start(kind, f"examples.{example}:app", **_env(directory))) as server:
        yield server


@contextlib.contextmanager
def two(example: str, directory: Path) -> Iterator[Pods]:
    """Run two instances of an example."""
    directory.chmod(0o755)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(one(example, directory)) for _ in range(2)]
        nginx = stack.enter_context(Nginx(directory)).start([servers[0].port])
        yield Pods(servers, nginx)


def _env(directory: Path) -> dict[str, str | float]:
    env = {**SETTINGS, "SSE_LOG": f"sqlite:///{directory}/log.db", "CHATS": f"{directory}/chats.db"}
    # Our own configuration reads the environment; under other servers Flask's prefix does.
    return env | {f"FLASK_{name}": value for name, value in env.items()}
