"""Asking a probe: alone, and beside open streams."""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field

from ..errors import CannotRun
from .wire import Target, ask, connect, request

#: How often it is asked, alone and beside streams.
TRIES = 5

#: Seconds for one answer; the kubelet's default is 1.
TIMEOUT = 2.0

#: Seconds for all streams to be answered. Those that are not are counted.
OPENING = 5.0


@dataclass(frozen=True, slots=True)
class Tried:
    """One probe."""

    status: int | None  # None: no answer in time
    seconds: float
    endless: bool = False
    length: int | None = None
    surplus: int = 0
    ended: str = ""
    kept: bool = False


@dataclass
class Probing:
    where: Target
    alone: list[Tried] = field(default_factory=list)
    beside: list[Tried] = field(default_factory=list)
    streams: int = 0
    answered: int = 0


def probe(where: Target, headers: dict[str, str], streams: Target | None, number: int) -> Probing:
    """Ask a probe alone, then beside ``number`` streams of ``streams``. Raises CannotRun if it cannot be reached at
    all.
    """
    connect(where).close()
    found = Probing(where)
    found.alone = [try_once(where, headers) for _ in range(TRIES)]
    if streams is None or not number:
        return found
    held: list[socket.socket] = []
    try:
        for _ in range(number):
            try:
                connection = connect(streams)
                connection.sendall(request(streams, {"Accept": "text/event-stream", **headers}))
            except (CannotRun, OSError):
                break
            held.append(connection)
        found.streams = len(held)
        found.answered = _answered(held)
        found.beside = [try_once(where, headers) for _ in range(TRIES)]
    finally:
        for connection in held:
            connection.close()
    return found


def _answered(held: list[socket.socket]) -> int:
    """How many of the streams have got their head."""
    waiting = set(held)
    deadline = time.monotonic() + OPENING
    while waiting and (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select(list(waiting), [], [], left)
        if not readable:
            break
        waiting -= set(readable)
    return len(held) - len(waiting)


def try_once(where: Target, headers: dict[str, str]) -> Tried:
    """As the kubelet asks: a new connection, a short time-out, the body read to its end."""
    begun = time.monotonic()
    try:
        answer = ask(where, {"User-Agent": "kube-probe/headwater-doctor", "Accept": "*/*", **headers}, TIMEOUT)
    except CannotRun:
        return Tried(None, time.monotonic() - begun)
    try:
        for _ in answer.pieces(begun + TIMEOUT):
            pass
        took = time.monotonic() - begun
        endless = answer.ended == ""
        asks_to_close = answer.headers.get("connection", "").lower() == "close" or answer.version == "HTTP/1.0"
        kept = answer.ended in ("length", "last chunk") and not asks_to_close
        return Tried(answer.status, took, endless, answer.length, len(answer.surplus), answer.ended, kept)
    finally:
        answer.close()
