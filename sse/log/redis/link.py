"""One connection to Redis: commands and replies.

Commands and replies pass between hiredis and the socket: redis-py's layers between the two cost an append 60 µs, half
of its time in a worker. Its client and pools are not used either (``connector``, ``pool``): they repeat a command whose
answer was lost, which for an append stores the event twice, and they share connections between threads, which gevent
forbids for threads of its pool (a socket belongs to the event loop that it was made in).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import hiredis
import redis
from redis._parsers.base import BaseParser

from .scripts import Script

Argument: TypeAlias = str | bytes | int
Command: TypeAlias = Sequence[Argument]

COMMAND_TIMEOUT: Final = 2.0  # seconds; our slowest command, a batch of 10,000, takes 0.1
RECEIVE_BYTES: Final = 65536  # of a reply at a time


class Link:
    """One connection. Its methods raise redis-py's errors; after any but a ``ResponseError`` it is to be closed."""

    __slots__ = ("_connection", "_reader", "_sock", "_timeout", "reign")

    def __init__(self, connection: Any, timeout: float) -> None:
        self._connection = connection
        self._sock: socket.socket = connection._get_socket()
        self._timeout = timeout
        self._sock.settimeout(timeout)
        self._reader = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=BaseParser.parse_error)
        self.reign: str | None = None  # of the master at its other end, once that was asked: see ``client``

    def call(self, commands: Sequence[Command], timeout: float | None = None) -> list[Any]:
        """The replies to commands that are sent in one write; raises the first error among them.

        timeout: seconds without a byte of an answer, None for that of the connection.
        """
        if timeout is None:
            self.send(commands)
            return self.receive(len(commands))
        self._sock.settimeout(timeout)
        self.send(commands)
        try:
            return self.receive(len(commands))
        finally:
            self._sock.settimeout(self._timeout)

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands: the first half of ``call``."""
        pack: Callable[[tuple[Argument, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
        data = b"".join([pack(tuple(command)) for command in commands])
        try:
            sent = self._sock.send(data)  # nearly always all of it; gevent's sendall asks for the buffer's size first
            if sent < len(data):
                self._sock.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise _lost(error) from error

    def receive(self, count: int) -> list[Any]:
        """Return the replies to ``count`` commands: the second half of ``call``."""
        sock, reader = self._sock, self._reader
        replies: list[Any] = []
        refused: redis.ResponseError | None = None
        try:
            while len(replies) < count:
                while (reply := reader.gets()) is False:
                    piece = sock.recv(RECEIVE_BYTES)
                    if not piece:
                        raise redis.ConnectionError("the connection was closed")
                    reader.feed(piece)
                if isinstance(reply, Exception):
                    if not isinstance(reply, redis.ResponseError):  # LOADING, too many clients: no use of it now
                        raise reply
                    refused = refused or reply
                replies.append(reply)
        except OSError as error:
            raise _lost(error) from error
        if refused is not None:
            raise refused
        return replies

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run a script and return its result."""
        return self.run_with(script, keys, args)[0]

    def run_with(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument], *more: Command
    ) -> list[Any]:
        """Run a script; return its result, and the replies to commands sent in the same write."""
        rest = (len(keys), *keys, *args)
        try:
            return self.call([("EVALSHA", script.sha, *rest), *more])
        except redis.exceptions.NoScriptError:  # a new Redis, or one that restarted; EVAL also makes it known
            return self.call([("EVAL", script.source, *rest), *more])

    def idle(self) -> bool:
        """Return True if it is open with nothing to read. A server that went away or restarted has closed it."""
        self._sock.settimeout(0)
        try:
            self._sock.recv(1)  # nothing was asked, so whatever arrives is not an answer
        except (BlockingIOError, ssl.SSLWantReadError):
            self._sock.settimeout(self._timeout)
            return True
        except OSError:
            pass
        return False

    def interrupt(self) -> None:
        """Make a ``call`` that waits in another thread or greenlet fail now; closing is left to its owner."""
        # Through a duplicate: TLS sockets have a shutdown of their own, which is not for another thread.
        with contextlib.suppress(OSError, ValueError), socket.socket(fileno=os.dup(self._sock.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.disconnect()


def _lost(error: OSError) -> redis.RedisError:
    if isinstance(error, TimeoutError):
        return redis.TimeoutError("time-out")
    return redis.ConnectionError(str(error))
