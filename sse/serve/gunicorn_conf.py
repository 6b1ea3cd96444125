"""gunicorn's configuration: the values, and the hooks of both extensions.

``gunicorn.conf.py`` (a checkout, the image) and ``headwater.gunicorn_conf`` (the package) are both made of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

from .. import gunicorn as sse_hooks
from ..observe import logging as logs
from ..settings import Settings


class HealthHooks(Protocol):
    """The module ``health.hooks``. It is handed over, because ``sse`` does not know health."""

    @property
    def on_starting(self) -> Callable[[Any], None]: ...
    @property
    def on_reload(self) -> Callable[[Any], None]: ...
    @property
    def nworkers_changed(self) -> Callable[[Any, int, int | None], None]: ...
    @property
    def pre_fork(self) -> Callable[[Any, Any], None]: ...
    @property
    def post_fork(self) -> Callable[[Any, Any], None]: ...
    @property
    def listens_on(self) -> Callable[[int], None]: ...
    @property
    def post_worker_init(self) -> Callable[[Any], None]: ...
    @property
    def worker_exit(self) -> Callable[[Any, Any], None]: ...
    @property
    def child_exit(self) -> Callable[[Any, Any], None]: ...
    @property
    def on_exit(self) -> Callable[[Any], None]: ...
    @property
    def replaced(self) -> Callable[[], bool]: ...


def configuration(settings: Settings, health: HealthHooks) -> dict[str, Any]:
    """Return what gunicorn's configuration file is to define, by name."""

    def on_starting(server: Any) -> None:
        logs.capture()
        health.on_starting(server)

    def post_fork(server: Any, worker: Any) -> None:
        health.post_fork(server, worker)
        health.listens_on(settings.health_port)

    def post_worker_init(worker: Any) -> None:
        sse_hooks.post_worker_init(worker)
        health.post_worker_init(worker)
        # After a reload the old workers keep accepting until the new ones do.
        worker.replaced = health.replaced

    return {
        # Streams, publishing and the console; and health, on a separate listener.
        "bind": [settings.bind, settings.health_bind],
        # By name: gunicorn imports it when the configuration is complete. (This package is `sse`, or `headwater.sse`.)
        "worker_class": f"{__name__.removesuffix('.serve.gunicorn_conf')}.worker.SSEWorker",
        "workers": settings.web_concurrency,
        # Connections per listener that are being read or answered; a stream leaves this pool at takeover.
        "worker_connections": settings.worker_connections,
        # The accept queue: a thousand clients that reconnect at once must not be refused (bounded by
        # net.core.somaxconn).
        "backlog": 4096,
        # Watchdog: gunicorn replaces a worker whose event loop is stuck. Streams have their own time-outs.
        "timeout": 30,
        # Longer than the drain, so that gunicorn never cuts a stream that the drain is about to end.
        "graceful_timeout": settings.graceful_timeout,
        # Never recycle workers by request count: such a worker stops accepting until all its streams have ended.
        "max_requests": 0,
        # Header limits in addition to SSE_MAX_HEADER_BYTES.
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": settings.sse_max_header_bytes,
        # Believe a forwarded scheme only from the configured proxies.
        "forwarded_allow_ips": ",".join(map(str, settings.sse_trusted_proxies)) or "127.0.0.1",
        # The watchdog's heartbeat file must not be on a disk that can stall.
        "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None,
        # gunicorn would create it under the home directory, which a read-only container does not have.
        "control_socket_disable": True,
        "logconfig_dict": logs.config(settings),
        "on_starting": on_starting,
        "on_reload": health.on_reload,
        "nworkers_changed": health.nworkers_changed,
        "when_ready": sse_hooks.when_ready,
        "pre_fork": health.pre_fork,
        "post_fork": post_fork,
        "post_worker_init": post_worker_init,
        "worker_exit": health.worker_exit,
        "child_exit": health.child_exit,
        "on_exit": health.on_exit,
    }
