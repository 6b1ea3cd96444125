"""What gunicorn's master and workers do for health: call these from the hooks of the same names in
gunicorn.conf.py.

    from health import hooks as health_hooks

    def on_starting(server):
        health_hooks.on_starting(server)

The board and the metrics directory must be there before the first worker is forked. Nothing here imports
Flask, gevent or ``ssl``: the master has to stay clean of what gevent patches in the workers.
"""

from __future__ import annotations

import os
from typing import Any, Final

from .metrics import files as metrics_files
from .signs.board import RUNNING, Board, extensions, process

# Room on the board: a reload keeps the old workers while the new ones run, TTIN adds workers one by one, and
# a slot is 256 bytes. A worker that finds no slot is reported as missing.
MIN_SLOTS: Final = 64
SLOTS_PER_WORKER: Final = 4


def on_starting(server: Any) -> None:
    """In the master, before the listeners are made."""
    if process.board is None:
        process.board = Board.create(max(MIN_SLOTS, SLOTS_PER_WORKER * server.num_workers))
    process.board.set_expected(server.num_workers)
    metrics_files.share_directory()


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
    """In the master, at the start, and with TTIN, TTOU and SIGHUP."""
    if process.board is not None:
        process.board.set_expected(new_value)


def on_reload(server: Any) -> None:
    """In the master, after SIGHUP and before the new workers are forked."""
    if process.board is not None:
        process.board.bump_generation()


def pre_fork(server: Any, worker: Any) -> None:
    """In the master: give the worker that is forked next its slot."""
    if process.board is not None:
        slots = (getattr(other, "health_slot", None) for other in server.WORKERS.values())
        worker.health_slot = process.board.reserve({slot for slot in slots if slot is not None})


def post_fork(server: Any, worker: Any) -> None:
    """In the worker, before anything else."""
    process.worker = (os.getpid(), getattr(worker, "health_slot", None))
    process.listening = tuple(listener.getsockname() for listener in worker.sockets)


def replaced() -> bool:
    """In a worker: has a reload begun since it was forked, and are all the workers of the new generation running? They
    accept on the same sockets, so this one may leave."""
    board, worker = process.board, process.worker
    own = None if board is None or worker is None or worker[1] is None else board.read(worker[1])
    if board is None or own is None or own.generation >= board.generation:
        return False
    running = [one for one in board.records() if one.generation >= board.generation and one.state == RUNNING]
    return len(running) >= board.expected


def post_worker_init(worker: Any) -> None:
    """In the worker, when the app is loaded and gevent has patched it: start what runs in the background."""
    for health in extensions():
        health.start()


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker, at its end: what it counted since the last flush, every stream of a drain's last second."""
    for health in extensions():
        health.stop()


def child_exit(server: Any, worker: Any) -> None:
    """In the master, when it has reaped a worker, however that ended."""
    slot = getattr(worker, "health_slot", None)
    if process.board is not None and slot is not None:
        process.board.release(slot)
    if (directory := metrics_files.pod_directory()) is not None:
        metrics_files.fold(directory, worker.pid)


def on_exit(server: Any) -> None:
    """In the master, at the end. (Its exit handler does the same where gunicorn ends without calling
    this.)"""
    metrics_files.remove_directory()
