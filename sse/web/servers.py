"""Which server runs the app, and how many streams it can hold.

Our own worker takes streams over. Under any other server a stream holds a thread or a greenlet for as long as its
client listens. When all of them are held, the server answers nothing else, and says nothing about it. So the first
stream under another server logs one warning, a few threads always stay free, and a server that cannot hold a stream
refuses it.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple

from ..log import LogRefused, check_url
from ..observe.environ import HUNG_UP
from ..runtime.cooperation import cooperative
from .problems import Problem

logger = logging.getLogger("headwater.server")

# Threads of a process that streams may not take: one for a probe, one for a publisher.
FREE_THREADS: Final = 2

# The package that holds this one: ``sse`` in a checkout, ``headwater.sse`` where it is installed.
_PACKAGE: Final = __name__.removesuffix(".web.servers")
_ADVICE: Final = (
    "gunicorn -c python:headwater.gunicorn_conf MODULE:APP"
    if _PACKAGE == "headwater.sse"
    else f"gunicorn -k {_PACKAGE}.worker.SSEWorker MODULE:APP"
)


class Server(NamedTuple):
    """A server that is not ours.

    name: for people. streams: how many one of its processes can hold beside other requests; None: no fixed number.
    because: why that is so; completes "NAME …".
    """

    name: str
    streams: int | None
    because: str

    @property
    def warning(self) -> str:
        """What to tell the operator."""
        if self.streams == 0:
            follows = "so streams are refused here (503); publishing works"
        elif self.streams is None:
            follows = "so the streams that it can hold are few"
        else:
            follows = f"so a process holds at most {self.streams} streams, and further clients are told to come again"
        return f"{self.name} {self.because}, {follows}. For streams use our worker: {_ADVICE} (docs/own-app.md)"


def _one_at_a_time(name: str) -> Server:
    return Server(name, 0, "answers one request at a time")


def _by_threads(name: str, threads: int) -> Server:
    if threads <= FREE_THREADS:
        plural = "s" * (threads > 1)
        return Server(name, 0, f"has {threads} thread{plural} in a process, and each stream would hold one")
    because = f"holds one of its {threads} threads for each stream, and {FREE_THREADS} are kept free"
    return Server(name, threads - FREE_THREADS, because)


# ── which one it is ───────────────────────────────────────────────────────────────────────────────────────────────


def server_of(environ: Mapping[str, Any]) -> Server | None:
    """Return the server that a request came to; None for our own worker, and for a test client."""
    software = str(environ.get("SERVER_SOFTWARE", ""))
    if HUNG_UP in environ:
        return None
    if "uwsgi.version" in environ or software.startswith("gunicorn"):
        found = running_server()
        if found is not None:
            return found
    if not software and "uwsgi.version" not in environ:
        return None
    name = software.partition("/")[0] or "uWSGI"
    if name == "waitress":
        threads = sum(thread.name.startswith("waitress-") for thread in threading.enumerate())
        return Server("waitress", 0, f"has {threads} threads, and each stream would hold one until long after its end")
    if name == "Werkzeug":
        name = "Flask's development server"
    if cooperative():
        return Server(name, None, "holds a greenlet for each stream, and notices late that a client has left")
    if name == "gevent":
        return Server("gevent's server without gevent's patches", 0, "answers one request at a time")
    if not environ.get("wsgi.multithread") or environ.get("wsgi.run_once"):
        return _one_at_a_time(name)
    return Server(name, None, "holds a thread for each stream")


def running_server() -> Server | None:
    """Return the server of this process, if that can be known without a request: a worker of gunicorn's, or uWSGI."""
    if (uwsgi := _uwsgi()) is not None:
        if cooperative():
            return Server("uWSGI", max(0, uwsgi.cores - FREE_THREADS), f"holds one of {uwsgi.cores} greenlets for each")
        return _by_threads("uWSGI", uwsgi.cores if uwsgi.has_threads else 1)
    worker = _gunicorn_worker()
    if worker is None or _is_ours(worker):
        return None
    kinds = {base.__module__.rpartition(".")[2] for base in type(worker).__mro__ if "gunicorn" in base.__module__}
    if "gthread" in kinds:
        return _by_threads("gunicorn's gthread worker", worker.cfg.threads)
    if "ggevent" in kinds:
        because = "holds a greenlet for each stream, and notices late that a client has left"
        return Server("gunicorn's gevent worker", worker.cfg.worker_connections - FREE_THREADS, because)
    if "sync" in kinds:
        return _one_at_a_time("gunicorn's sync worker")
    return None


def _gunicorn_worker() -> Any:
    """Return this process's worker, if gunicorn forked it and it was set up: its methods are the signals' handlers."""
    base = sys.modules.get("gunicorn.workers.base")
    for signum in (signal.SIGABRT, signal.SIGUSR1, signal.SIGTERM):  # an app may have handlers of its own
        owner = getattr(signal.getsignal(signum), "__self__", None)
        if base is not None and isinstance(owner, base.Worker):
            return owner
    return None


def _is_ours(worker: Any) -> bool:
    return bool(getattr(worker, "adopts", False))


@cache
def _uwsgi() -> Any:
    """Return uWSGI's module, which exists only inside it."""
    try:
        return import_module("uwsgi")
    except ImportError:
        return None


def forks_unseen() -> bool:
    """Tell whether this server forks without Python's hooks for it (os.register_at_fork)."""
    return _uwsgi() is not None


# ── what follows ──────────────────────────────────────────────────────────────────────────────────────────────────

_said: Final[set[str]] = set()


def warn(server: Server | None) -> None:
    """Log the warning about a server, once in a process."""
    if server is not None and server.name not in _said:
        _said.add(server.name)
        logger.warning("%s", server.warning)


def refuse_or_warn(environ: Mapping[str, Any]) -> int | None:
    """Return how many streams the server of a request can hold in this process, None for no fixed number.

    Logs a warning, once, if the server is not ours. Raises Problem (503) if it cannot hold any.
    """
    server = server_of(environ)
    warn(server)
    if server is not None and server.streams == 0:
        raise Problem(503, server.warning, server=server.name)
    return None if server is None else server.streams


# ── a log in memory ───────────────────────────────────────────────────────────────────────────────────────────────


def refuse_company(url: str, *, now: bool = False) -> None:
    """Refuse a log in memory if the server has several processes, as far as that can be known without a request.

    now: count the processes that gunicorn's master was told to have by a signal (TTIN), too. Not at the start, because
    a worker that cannot start would end the whole service.

    Raises LogRefused: each process would have a log of its own.
    """
    if check_url(url).shared:
        return
    processes, where = 1, ""
    if (uwsgi := _uwsgi()) is not None:
        processes, where = uwsgi.numproc, "--processes of uWSGI"
    elif (worker := _gunicorn_worker()) is not None:
        processes, where = worker.cfg.workers, "--workers, GUNICORN_CMD_ARGS or WEB_CONCURRENCY"
        if now and processes == 1 and not _is_ours(worker):  # ours refuses the signal in the master
            arbiter = sys.modules["gunicorn.arbiter"].Arbiter
            masters = [found for found in gc.get_objects() if isinstance(found, arbiter)]  # as it was at the fork
            processes, where = max([1, *(master.num_workers for master in masters)]), "the signal TTIN"
    if processes > 1:
        raise LogRefused(company(processes, where))


def company(processes: int, where: str) -> str:
    """Say why a log in memory is refused."""
    return (
        f"SSE_LOG=memory: allows one worker, but there are {processes} ({where}): each would have its own log, and an"
        " event published to one would not reach the others; set sqlite:///… or redis://…"
    )
