"""Redis, several instances of the service, each with its own network to Redis, and nginx in front."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.chaos.reader import Reader, stop_all
from tests.chaos.recorder import Recorder
from tests.chaos.silent_proxy import SilentProxy
from tests.k8s.nginx import Nginx
from tests.support.redis_server import RedisServer
from tests.support.server import COMMAND, Server

# Short, so that a fault takes seconds; in the defaults' proportions.
KEY = "chaos-and-nothing-but-chaos"  # without one, publishing through nginx is closed
SETTINGS: dict[str, str | float] = {
    "SSE_PUBLISH_KEY": KEY,
    "SSE_TRUSTED_PROXIES": "127.0.0.1",
    "LOG_LEVEL": "warning",
    "SSE_RETRY": 100,
    "SSE_HEARTBEAT": 0.4,
    "SSE_DRAIN_DELAY": 0.3,
    "SSE_DRAIN_WINDOW": 0.7,
    "SSE_REPLAY_LIMIT": 100_000,
}


class Fleet:
    """A context manager. What is acknowledged is on Redis's disk: ``appendfsync always``.

    :param instances: how many. :param workers: per instance.
    :param replicas: how many replicas must have an event before it is acknowledged (in Redis's URL).
    :param direct: connect to Redis without a network that can go silent, for measurements.
    :param redis: settings of redis.conf, or a running Redis. :param app: what the instances serve; an app may write to
    the file that its variable ``RUNS_BOOK`` names. :param env: the instances' settings.
    """

    def __init__(
        self,
        instances: int = 2,
        *,
        workers: int = 1,
        replicas: int = 0,
        direct: bool = False,
        redis: dict[str, Any] | RedisServer | None = None,
        app: str = COMMAND[-1],
        **env: str | float | None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="headwater-fleet-"))
        self.directory.chmod(0o755)  # nginx's workers run as another user, and store large bodies there
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.redis = (
            redis if isinstance(redis, RedisServer) else RedisServer(**{"appendfsync": "always", **(redis or {})})
        )
        self._starts_redis = self.redis is not redis
        self.networks: list[SilentProxy] = []
        self.servers: list[Server] = []
        self._direct = direct
        self._query = f"?replicas={replicas}" if replicas else ""
        self._instances = instances
        self._command = (*COMMAND[:-1], app)
        self.book = self.directory / "runs"
        self.book.touch()
        self.env: dict[str, Any] = {**SETTINGS, "WEB_CONCURRENCY": workers, "RUNS_BOOK": self.book, **env}

    @property
    def port(self) -> int:
        """nginx's port."""
        return self.nginx.port

    def url(self, instance: int) -> str:
        """Redis's URL, through the network of this instance."""
        port = self.redis.port if self._direct else self.networks[instance].port
        return f"redis://127.0.0.1:{port}/0{self._query}"

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as guard:
            guard.push(self._stack)
            if self._starts_redis:
                self._stack.enter_context(self.redis)
            for _ in range(self._instances):
                network = self._stack.enter_context(SilentProxy(self.redis.port))
                self.networks.append(network)
                server = Server(command=self._command, startup_timeout=40.0, SSE_LOG=self.url(-1), **self.env)
                self._stack.callback(server.close)
                self.servers.append(server)
            with ThreadPoolExecutor(self._instances) as pool:
                list(pool.map(lambda server: server.start(), self.servers))
            self.nginx = self._stack.enter_context(Nginx(self.directory)).start(self.ports)
            guard.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for server in self.servers:
                error.add_note(f"an instance's output:\n{server.log_tail(15)}")
            error.add_note(f"nginx:\n{(self.directory / 'error.log').read_text()[-2000:]}")
        self._stack.close()

    def recorder(self, port: int | None = None, **options: Any) -> Recorder:
        """Make a publisher, through nginx or to one instance."""
        headers = {"Authorization": f"Bearer {KEY}"}
        return Recorder(port or self.port, headers=lambda: headers, **options)

    def readers(self, stack: contextlib.ExitStack, count: int = 6, ports: Sequence[int] | None = None) -> list[Reader]:
        """Connect this many clients, through nginx or in turn to the given ports; one in three has both channels."""
        ports = ports or [self.port]
        readers = [
            stack.enter_context(Reader(ports[n % len(ports)], [("a",), ("b",), ("a", "b")][n % 3]))
            for n in range(count)
        ]
        stack.callback(stop_all, readers)  # all at once, before each is waited for
        for reader in readers:
            reader.wait_connected(10)
        return readers
