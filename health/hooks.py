"""Health's part of gunicorn's hooks. Call these from the hooks of the same names in gunicorn.conf.py.

    from health import hooks as health_hooks

    def on_starting(server):
        health_hooks.on_starting(server)

The master creates the board and the metrics directory before it forks the first worker. Nothing here imports Flask,
gevent or ``ssl``, because gevent patches ``ssl`` in the workers, and must not find it half-used by the master.
"""

from __future__ import annotations

import os
from typing import Any, Final

from .metrics import files as metrics_files
from .signs.board import RUNNING, Board, extensions, process

# Slots on the board (256 bytes each). There are more than workers, because during a reload old and new workers run
# together, and TTIN adds workers. A worker without a slot counts as missing.
MIN_SLOTS: Final = 64
SLOTS_PER_WORKER: Final = 4


def on_starting(server: Any) -> None:
    """In the master, before it opens the listeners: create the board and the metrics directory."""
    if process.board is None:
        process.board = Board.create(max(MIN_SLOTS, SLOTS_PER_WORKER * server.num_workers))
    process.board.set_expected(server.num_workers)
    metrics_files.share_directory()


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
    """In the master, at the start and after TTIN, TTOU and SIGHUP: set how many workers are expected."""
    if process.board is not None:
        process.board.set_expected(new_value)


def on_reload(server: Any) -> None:
    """In the master, after SIGHUP and before it forks the new workers: begin a generation."""
    if process.board is not None:
        process.board.bump_generation()


def pre_fork(server: Any, worker: Any) -> None:
    """In the master: reserve a slot for the next worker."""
    if process.board is not None:
        slots = (getattr(other, "health_slot", None) for other in server.WORKERS.values())
        worker.health_slot = process.board.reserve({slot for slot in slots if slot is not None})


def post_fork(server: Any, worker: Any) -> None:
    """In the worker, before anything else: note its slot and the listeners."""
    process.worker = (os.getpid(), getattr(worker, "health_slot", None))
    process.listening = tuple(listener.getsockname() for listener in worker.sockets)


def listens_on(port: int) -> None:
    """In the worker, after :func:`post_fork`: say which listener is health's, by its port (0: the last), for apps whose
    own configuration has no HEALTH_PORT."""
    process.port = port


def replaced() -> bool:
    """In a worker: tell whether a reload has replaced it, and all workers of the new generation run.

    They accept on the same sockets, so this worker may leave.
    """
    board, worker = process.board, process.worker
    own = None if board is None or worker is None or worker[1] is None else board.read(worker[1])
    if board is None or own is None or own.generation >= board.generation:
        return False
    running = [one for one in board.records() if one.generation >= board.generation and one.state == RUNNING]
    return len(running) >= board.expected


def post_worker_init(worker: Any) -> None:
    """In the worker, after gevent's patching and the app's loading: start the background work."""
    for health in extensions():
        health.start()


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker, at its end: write the last counts."""
    for health in extensions():
        health.stop()


def child_exit(server: Any, worker: Any) -> None:
    """In the master, after it has reaped a worker: free its slot and keep its counters."""
    slot = getattr(worker, "health_slot", None)
    if process.board is not None and slot is not None:
        process.board.release(slot)
    if (directory := metrics_files.pod_directory()) is not None:
        metrics_files.fold(directory, worker.pid)


def on_exit(server: Any) -> None:
    """In the master, at its end: remove the metrics directory. If gunicorn does not call this, an exit handler does."""
    metrics_files.remove_directory()
