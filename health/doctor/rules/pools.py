"""Pools of threads or connections that streams fill, and how large they are."""

from __future__ import annotations

from ..model import Model
from ..units import count
from ..workloads import Container, Probe

#: Servers that hold streams in a pool of fixed size, and how the pool is called.
_POOLED = {"gunicorn", "waitress", "puma", "uwsgi"}


def pool_shares_port(model: Model, container: Container, probe: Probe) -> bool:
    """True if an HTTP probe waits in the same pool as the streams."""
    server = model.server(container)
    if server.name not in _POOLED or probe.action != "http" or model.apart(container, probe.port):
        return False
    return "uvicorn" not in (server.get("worker-class") or "").lower() and "sse.worker" not in (
        server.get("worker-class") or ""
    )


def pool(model: Model, container: Container) -> tuple[int, str] | None:
    """The number of streams that fill a server, and the arithmetic; None where it cannot be seen."""
    server = model.server(container)
    if server.unclear("workers", "processes", "threads", "worker-connections") and server.name != "puma":
        return None
    workers = server.workers
    if server.name == "gunicorn":
        kind = (server.get("worker-class") or ("gthread" if (server.number("threads") or 1) > 1 else "sync")).lower()
        if not server.settled and "worker-class" not in server.options and "threads" not in server.options:
            return None
        if "gevent" in kind or "eventlet" in kind:
            each = int(server.number("worker-connections", 1000) or 1000)
            return workers * each, f"{workers} × worker_connections {each}"
        if kind == "gthread":
            each = int(server.number("threads", 1) or 1)
            return workers * each, f"{count(workers, 'worker')} × {count(each, 'thread')}"
        if kind == "sync":
            return workers, count(workers, "sync worker")
    if server.name == "waitress":
        each = int(server.number("threads", 4) or 4)
        return each, count(each, "thread")
    if server.name == "uwsgi" and server.settled and not {"gevent", "async", "asyncio"} & server.options.keys():
        each = int(server.number("threads", 1) or 1)
        return workers * each, f"{workers} processes × {count(each, 'thread')}"
    if server.name == "puma":
        value = container.env.get("RAILS_MAX_THREADS") or container.env.get("PUMA_MAX_THREADS") or ""
        threads = (server.get("threads") or "").rpartition(":")[2] or value
        if threads.isdigit():
            return workers * int(threads), f"{workers} workers × {threads} threads"
    return None
