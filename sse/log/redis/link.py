"""Connections to Redis: making them, keeping a few, and what their errors mean.

redis-py's ``Connection`` opens them (sockets, TLS, AUTH). After that, commands and replies pass between hiredis and the
socket: redis-py's layers between the two cost an append 60 µs, half of its time in a worker. Its client and pools are
not used either: they repeat a command whose answer was lost, which for an append stores the event twice, and they
share connections between threads, which gevent forbids for threads of its pool (a socket belongs to the event loop
that it was made in).
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import hiredis
import redis
from redis._parsers.base import BaseParser
from redis.connection import Connection, SSLConnection

from ..base import LogUnavailable
from .scripts import Script
from .url import RedisUrl

Argument: TypeAlias = str | bytes | int
Command: TypeAlias = Sequence[Argument]

CONNECT_TIMEOUT: Final = 1.0  # seconds; a healthy Redis accepts within a network round trip
COMMAND_TIMEOUT: Final = 2.0  # seconds; our slowest command, a batch of 10,000, takes 0.1
# Requests wait for one of these rather than open their own: 8 at 1 ms a round trip are 8,000 appends/s.
POOL_SIZE: Final = 8
RECEIVE_BYTES: Final = 65536  # of a reply at a time
RETRY_AFTER: Final = 1.0  # seconds; what publishers are told after an error that may pass


REFUSALS: Final = (redis.AuthenticationError, redis.exceptions.AuthorizationError)  # of a connection


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


class Connector:
    """Opens connections to the master that a URL names."""

    def __init__(self, target: RedisUrl) -> None:
        self.target = target
        self._sentinels = list(target.hosts) if target.service else []

    def connect(self, *, timeout: float = COMMAND_TIMEOUT, patience: float = CONNECT_TIMEOUT) -> Link:
        """Open a connection, authenticated, its database selected.

        timeout: seconds that an answer may take.
        patience: seconds that connecting may take, for the server and for each Sentinel.

        Raises redis-py's ``ConnectionError`` (``REFUSALS`` are such) and ``TimeoutError``.
        """
        target = self.target
        options: dict[str, Any] = {"username": target.username, "password": target.password, "db": target.db}
        options |= {"socket_timeout": timeout, "socket_connect_timeout": patience}
        host, port = self._master(patience) if target.service else target.hosts[0]
        link = self._open_tcp(host, port, **options)
        if target.service:
            self._check_role(link, f"{host}:{port}")
        return link

    def _open_tcp(self, host: str, port: int, **options: Any) -> Link:
        if self.target.tls:
            return _open(SSLConnection, host=host, port=port, **self.target.ssl, **options)
        return _open(Connection, host=host, port=port, **options)

    def _master(self, patience: float) -> tuple[str, int]:
        """Ask one Sentinel after the other, the one that answered last first.

        https://redis.io/docs/latest/develop/reference/sentinel-clients/, steps 1 and 2.
        """
        said = []
        for host, port in list(self._sentinels):
            try:
                address = self._ask(host, port, patience)
            except redis.RedisError as error:
                said.append(f"{host}:{port}: {error}")
                continue
            if address is None:
                said.append(f"{host}:{port} does not know it")
                continue
            self._sentinels.remove((host, port))
            self._sentinels.insert(0, (host, port))
            return address[0].decode(), int(address[1])
        raise redis.ConnectionError(f"no Sentinel names a master of {self.target.service}: {'; '.join(said)}")

    def _ask(self, host: str, port: int, patience: float) -> list[bytes] | None:
        options: dict[str, Any] = {"socket_timeout": patience, "socket_connect_timeout": patience}
        question = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.service)]
        with contextlib.closing(self._open_tcp(host, port, **options)) as link:
            try:
                address: list[bytes] | None = link.call(question)[0]
                return address
            except redis.AuthenticationError:
                if not self.target.password:
                    raise
        # Most set-ups leave Sentinels open; those that do not have the server's own credentials for them.
        options |= {"username": self.target.username, "password": self.target.password}
        with contextlib.closing(self._open_tcp(host, port, **options)) as link:
            address = link.call(question)[0]
            return address

    @staticmethod
    def _check_role(link: Link, where: str) -> None:
        """Step 3 of the same page: during a failover a Sentinel may still name the old master."""
        try:
            role = link.call([("ROLE",)])[0][0]
        except redis.exceptions.NoPermissionError:
            return
        except BaseException:
            link.close()
            raise
        if role != b"master":
            link.close()
            raise redis.ConnectionError(f"{where} is a {role.decode()} now, not the master")


def _open(kind: Any, **options: Any) -> Link:
    # RESP2: its replies are plain lists. No CLIENT SETINFO: two round trips, and a right that an ACL may withhold.
    connection = kind(protocol=2, driver_info=None, **options)
    try:
        connection.connect()
    except redis.ResponseError as error:  # to AUTH or SELECT: this database is not for this user, or there is none
        connection.disconnect()
        raise redis.exceptions.AuthorizationError(str(error)) from error
    except BaseException:
        connection.disconnect()
        raise
    return Link(connection, options["socket_timeout"])


class Pool:
    """A few connections for short requests. Under gevent, each native thread has its own."""

    def __init__(self, connector: Connector, size: int = POOL_SIZE) -> None:
        self._connector = connector
        self._size = size
        self._pid = os.getpid()
        self._patched = _patched()
        self._shelves: dict[int, Shelf] = {}

    def lease(self, *, patience: float = CONNECT_TIMEOUT) -> Lease:
        """Lease a connection for a ``with``: an idle one, else a new one; waits ``COMMAND_TIMEOUT`` for a place.

        patience: seconds that connecting may take. Raises what ``Connector.connect`` does, and ``LogUnavailable``.
        """
        shelf = self._shelf()
        try:
            shelf.room.get(timeout=COMMAND_TIMEOUT)
        except queue.Empty:
            message = f"all {self._size} connections to Redis are busy"
            raise LogUnavailable(message, RETRY_AFTER, stored="no") from None
        try:
            return Lease(shelf, self._idle(shelf) or self._connector.connect(patience=patience))
        except BaseException:
            shelf.room.put(None)
            raise

    def clear(self) -> None:
        """Close idle connections: after a failover they lead to the wrong server."""
        links = self._shelf().links
        while links:
            links.pop().close()

    def _idle(self, shelf: Shelf) -> Link | None:
        while shelf.links:
            link = shelf.links.pop()  # the one used last: the others may age and be closed by the server
            if link.idle():
                return link
            link.close()
        return None

    def _shelf(self) -> Shelf:
        if os.getpid() != self._pid:
            # After a fork, open connections are the parent's: forget them; their descriptors close at exit.
            self._shelves, self._pid = {}, os.getpid()
        thread = threading.get_native_id() if self._patched else 0
        shelf = self._shelves.get(thread)
        if shelf is None:
            shelf = self._shelves.setdefault(thread, Shelf(self._size))
        return shelf


class Lease:
    """A pool's connection, for the length of a ``with``. (``contextlib`` would cost more than all the rest.)"""

    __slots__ = ("_link", "_shelf")

    def __init__(self, shelf: Shelf, link: Link) -> None:
        self._shelf = shelf
        self._link = link

    def __enter__(self) -> Link:
        return self._link

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        # After any other exception, such as a killed greenlet's, an answer may still be on its way.
        if kind is None or issubclass(kind, (redis.ResponseError, LogUnavailable)):
            self._shelf.links.append(self._link)
        else:
            self._link.close()
        self._shelf.room.put(None)


class Shelf:
    """Idle connections, and a queue with a token for each connection that may be in use."""

    __slots__ = ("links", "room")

    def __init__(self, size: int) -> None:
        self.links: list[Link] = []
        self.room: queue.SimpleQueue[None] = queue.SimpleQueue()  # a tenth of a semaphore's cost
        for _ in range(size):
            self.room.put(None)


def _patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


# What error replies mean and what helps, by their first word.
_REPLIES: Final = {
    "OOM": "Redis is full (maxmemory): give it more, or retain less",
    "READONLY": "this Redis is a replica",
    "MISCONF": "Redis cannot save to its disk and takes no writes",
    "NOREPLICAS": "Redis has too few replicas to take writes (min-replicas-to-write)",
    "LOADING": "Redis is loading its data",
    "MASTERDOWN": "this Redis is a replica that has lost its master",
    "BUSY": "Redis is busy with a script",
    "UNBLOCKED": "this Redis has become a replica",
    "NOPERM": "the Redis user lacks a right",
    "WRONGTYPE": "another program's key is in the way",
    "FORMAT": "the log in Redis is of another version",
}
# Replies that Redis gives only before a script's first write, since it does not stop a script that has written. No
# reply to WAIT is among them. After any other error reply, events may have been stored.
NOTHING_WRITTEN: Final = frozenset({"OOM", "READONLY", "MISCONF", "NOREPLICAS", "WRONGTYPE", "FORMAT"})
# NOPERM as Redis 7 and Valkey say it of a command inside a script.
_NO_RIGHT: Final = ("can't run this command", "can't access at least one of the keys", "has no permissions")


def error_word(error: Exception) -> str:
    """Return the word that tells error replies apart; for a command in a script, it may be anywhere in the text."""
    text = str(error)
    if any(words in text for words in _NO_RIGHT):
        return "NOPERM"
    words: list[str] = [getattr(error, "status_code", None) or "", *re.findall(r"\b[A-Z]{3,}\b", text)]
    return next((word for word in words if word in _REPLIES), words[0])


def wrote_nothing(error: BaseException | None) -> bool:
    """Return True if this error reply proves that a script wrote nothing."""
    return isinstance(error, redis.ResponseError) and error_word(error) in NOTHING_WRITTEN


def explain(error: Exception) -> str:
    """Explain a redis-py error in one line: what it means, and Redis's own words."""
    text = str(error) or type(error).__name__
    if isinstance(error, redis.TimeoutError):
        return f"Redis did not answer in time ({text})"
    if meaning := _REPLIES.get(error_word(error)):
        return f"{meaning} ({text})"
    if isinstance(error, REFUSALS):
        return f"Redis refuses the user, the password or the database ({text})"
    if isinstance(error, redis.ResponseError):
        return f"Redis refuses the command ({text})"
    return f"Redis cannot be reached ({text})"
