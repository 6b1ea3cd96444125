"""The end of a worker: it serves everything for a while longer, then ends streams and connections one by one, and cuts
what is left. These are the last three states of :mod:`sse.worker.worker`.

Its runs go on meanwhile, and longer if SSE_RUN_GRACE says so: their readers watch them from another worker.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import gevent

from ..streams.stream import CloseReason
from .deadlines import ConnState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gevent.server import StreamServer

    from ..extension import AppSSE
    from ..fanout import Fanout
    from ..runtime.failures import Failures
    from ..settings import Settings
    from ..streams.hub import Hub
    from .connection import Connection

# Seconds that a hurried drain may take. gunicorn's master kills its workers 2 s after it has passed SIGQUIT on.
HURRY: Final = 1.5
# Seconds after the drain's window for responses that are still being written. More than the fan-out's LINGER; together
# with the exit itself, less than the margin in `graceful_timeout`.
AFTER_WINDOW: Final = 1.2
# Seconds that runs have to end once their time is over: their iterables are closed, and their ends are stored.
END_OF_RUNS: Final = 1.5


class Worker(Protocol):
    """The worker that is drained.

    hurried    True if everything left must end now; signals set it at any time
    replaced   returns whether, after a reload, the new workers run
    """

    settings: Settings
    extensions: list[AppSSE]
    log: Any
    hurried: bool
    replaced: Callable[[], bool]
    connections: set[Connection]
    fanouts: dict[Hub, Fanout]
    failures: Failures

    def notify(self) -> None: ...

    def is_health(self, server: StreamServer) -> bool: ...

    def for_health(self, connection: Connection) -> bool: ...


def drain(worker: Worker, servers: Sequence[StreamServer]) -> None:
    """End everything; return when nothing is left, or the time is over."""
    settings = worker.settings
    began = time.monotonic()
    delay = settings.sse_drain_delay
    runs = _Runs(worker, began + (settings.sse_run_grace or delay + settings.sse_drain_window))
    for hub in worker.fanouts:
        hub.wake_polls()
    while time.monotonic() < began + delay and not worker.hurried and not worker.replaced():
        worker.notify()
        runs.waited_for()
        gevent.sleep(0.1)
    for server in servers:
        if not worker.is_health(server):
            server.close()
    for connection in list(worker.connections):
        if connection.state is ConnState.IDLE and not worker.for_health(connection):
            connection.hang_up()
    window = 0.0 if worker.hurried else settings.sse_drain_window
    _end_streams(worker, window)
    deadline = time.monotonic() + (HURRY if worker.hurried else window + AFTER_WINDOW)
    last_call = time.monotonic() + window
    while (_busy(worker) and time.monotonic() < deadline) or runs.waited_for():
        worker.notify()
        if worker.hurried and window:
            window = 0.0
            _end_streams(worker, 0.0)
            deadline = last_call = min(deadline, time.monotonic() + HURRY)
        if time.monotonic() >= last_call or worker.hurried:
            try:
                _last_call(worker)
            except Exception:
                worker.failures.report("the drain's last call failed; it goes on")
        gevent.sleep(0.05)
    left = _busy(worker)
    worker.log.info("drained in %.1f s%s", time.monotonic() - began, f", {left} connections cut" if left else "")
    runs.say_what_is_left()
    for server in servers:
        server.stop(timeout=0.1)
    for fanout in worker.fanouts.values():
        fanout.stop()
    for sse in worker.extensions:
        sse.stop()


class _Runs:
    """The worker's runs while it drains. until: when they are ended, monotonic seconds."""

    def __init__(self, worker: Worker, until: float) -> None:
        self._worker = worker
        self._until = until
        self._ended_at: float | None = None
        if count := self._count():
            worker.log.info("draining: %d runs go on, for at most %.0f s", count, until - time.monotonic())

    def _count(self) -> int:
        return sum(sse.run_count for sse in self._worker.extensions)

    def waited_for(self) -> bool:
        """Tell whether runs are left to wait for; end them once their time is over."""
        count, now = self._count(), time.monotonic()
        if count and (self._worker.hurried or now >= self._until):
            if self._ended_at is None:
                self._ended_at = now
                self._worker.log.warning("draining: %d runs have not ended, they end as lost", count)
            for sse in self._worker.extensions:
                sse.end_runs()
        return count > 0 and (self._ended_at is None or now < self._ended_at + END_OF_RUNS)

    def say_what_is_left(self) -> None:
        if count := self._count():
            self._worker.log.warning("the ends of %d runs could not be stored; another worker will end them", count)


def _end_streams(worker: Worker, window: float) -> None:
    for hub, fanout in worker.fanouts.items():
        fanout.drain(window)
        for stream in list(hub.pulling):
            gevent.spawn_later(random.uniform(0, window), stream.end, CloseReason.DRAIN)


def _last_call(worker: Worker) -> None:
    """End streams that have a greenlet of their own: they notice at their next write."""
    for sse in worker.extensions:
        sse.end_responses()
    for hub in worker.fanouts:
        for stream in list(hub.pulling):
            stream.end(CloseReason.DRAIN)


def _busy(worker: Worker) -> int:
    """Return the number of streams and requests that have not ended."""
    streams = sum(fanout.busy() + len(hub.pulling) for hub, fanout in worker.fanouts.items())
    return streams + sum(
        1
        for connection in worker.connections
        # A new connection's request may be on its way; its header timer bounds the wait.
        if connection.state in (ConnState.NEW, ConnState.ACTIVE) and not worker.for_health(connection)
    )
