"""Hooks for gunicorn's configuration file.

    from sse.gunicorn import post_worker_init, when_ready

With ``post_worker_init`` the extension also works under gunicorn's own worker classes; with ``when_ready`` the master
loses no signal while it forks or reloads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError

from . import registry
from .log import LogRefused, LogUnavailable
from .web.servers import refuse_company, running_server, warn

if TYPE_CHECKING:
    from .extension import AppSSE

# Seconds that a worker which cannot start waits for the master to end it (see :func:`starting`).
FAILED_WORKER_WAIT: Final = 2.0


def post_worker_init(worker: Any) -> None:
    """In a worker that has loaded its app: start the hubs, and tell the extensions about the server."""

    def adopt(sse: AppSSE) -> None:
        tell_listening(sse.app, worker.sockets)
        refuse_company(sse.settings.sse_log)
        warn(running_server())
        sse.start()

    if not getattr(worker, "adopts", False):  # our own worker class does this itself
        with starting(worker):
            registry.follow(adopt)


@contextmanager
def starting(worker: Any) -> Iterator[None]:
    """Run a worker's start in this context. If it fails, write one line for a failure that an operator can repair (a
    log that is refused), else a traceback; print nothing, as gunicorn would. gunicorn then ends, with status 4 if there
    is no such app, else with 3.

    All workers of one start fail together. If a second one reported a failure while gunicorn's master stops the others,
    the master would end with a traceback and status 1. So one worker reports, and the others wait for its signal.
    """
    status: int = Arbiter.WORKER_BOOT_ERROR
    try:
        yield
        return
    except AppImportError as error:
        worker.log.error("cannot start: %s", error)
        status = Arbiter.APP_LOAD_ERROR
    except (LogRefused, LogUnavailable) as error:
        worker.log.error("cannot start: %s", error)
    except Exception:
        worker.log.exception("cannot start: loading the app failed")
    if (worker.age - 1) % max(worker.cfg.workers, 1) and _told_to_end(worker):
        status = 0
    sys.exit(status)


def _told_to_end(worker: Any) -> bool:
    """Wait for the master's signal to end; return whether it came in time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    return not worker.alive or signal.sigtimedwait(_HELD, FAILED_WORKER_WAIT) is not None


def tell_listening(app: Any, sockets: Iterable[Any]) -> frozenset[Any]:
    """Tell the app's extensions which addresses the server listens on. Return those that ``app.extensions["health"]``
    claims as its own: they do not serve streams or publishing."""
    extensions = getattr(app, "extensions", {})
    names = [sock.getsockname() for sock in sockets]
    listen = getattr(extensions.get("health"), "listen", None)
    of_health = frozenset() if listen is None else frozenset(listen(names))
    if (sse := extensions.get("sse")) is not None:
        sse.listen([name for name in names if name not in of_health])
    return of_health


def when_ready(server: Any) -> None:
    """In the master, once it listens: make sure that no signal is lost or late.

    A worker that was just forked still has the master's handlers, in which a signal would be lost (seen: the drain then
    takes all of ``graceful_timeout``). So signals stay blocked until the worker has its own handlers.

    During a reload the master waits for the old workers to end, as long as a whole drain, before it looks at its queue
    of signals. A signal that ends the service must not wait for that: the pod's grace period would be over before the
    new workers have drained. So the master obeys it at once.
    """
    if getattr(server.worker_class, "takes_blocked_signals", False):
        os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals)
    reload = type(server).reload.__code__

    def obey(queue: Any, signum: int, frame: Any) -> None:
        # Queue it in any case: the master's last loop looks for SIGQUIT and SIGINT in the queue, to hurry.
        queue(signum, frame)
        if frame is not None and frame.f_code is reload:
            raise StopIteration  # ends the master's main loop

    for signum in _HELD:
        usual = signal.getsignal(signum)
        if callable(usual):
            signal.signal(signum, partial(obey, usual))


_HELD: Final = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
