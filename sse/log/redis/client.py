"""Calls Redis for the log: on a pooled connection, through the breaker, with errors translated into the log's own.

**Has Redis lost events?** A replica that takes over, or a Redis that restarts, may lack events that this worker has
stored or read, and perhaps only this worker knows. So before it uses a new connection, it asks Redis for the newest of
these events. If that one is gone, it marks the log, in Redis and for everybody (``scripts.JOIN``).

The event asked for must be older than the connection. So when a new connection leads to another master, the worker
gives up all older connections and the answers still due on them: an old master that does not know that it was
replaced would go on acknowledging events that are about to be lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import redis

from ...events.model import format_id
from ...runtime.cooperation import native_lock
from ..base import LogRefused, LogUnavailable
from .breaker import Breaker
from .check import check
from .codec import Keys
from .connector import CONNECT_TIMEOUT, Connector
from .errors import RETRY_AFTER, error_word, explain
from .link import COMMAND_TIMEOUT, Argument, Link
from .pool import POOL_SIZE, Pool
from .scripts import JOIN, Script
from .url import RedisUrl

logger = logging.getLogger("headwater.log.redis")

T = TypeVar("T")

ALL: Final[frozenset[bytes]] = frozenset()
REPLICA_TIMEOUT_MS: Final = 1000  # how long a write waits for ?replicas=
MISSING_TIMEOUT_MS: Final = 100  # and how long while they are known to be missing: a connection is held meanwhile

SYNC_TIMEOUT_MS: Final = 1000  # how long a write waits for ?sync=full; Redis has synced before it answers at all

# Connections with ?sync=full, each held by one write until its sync. Redis makes one sync for all that wait.
SYNC_POOL_SIZE: Final = 64

# Every master has its own: a replica takes a new one when it is promoted, and so does a Redis that starts as a master.
_REPLICATION_ID: Final = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)

# While Redis is known to be down, the one request that probes waits this long to connect, and again for its answer, so
# even that request ends in less than 250 ms.
PROBE_TIMEOUT: Final = 0.1


class Client:
    """One worker's access to the log's keys.

    seen: the newest position that this worker, and so perhaps a client, knows; passed to scripts. Only rises.
    held: the newest event that it has stored or read. Only rises.
    history: the log's creation marker and its mark of loss.
    followed: the newest position that a follower handed over.
    reign: the replication id of the master found last; "" if Redis does not say.
    """

    def __init__(self, target: RedisUrl, prefix: str) -> None:
        self.target = target
        self.keys = Keys(prefix)
        self.breaker = Breaker()
        self.closed = False
        self.seen = 0
        self.held = 0
        self.history: tuple[bytes, bytes] | None = None
        self.followed: int | None = None
        self.reign: str | None = None
        self._unconfirmed = False  # were replicas missing at the last write?
        self._rising = native_lock()  # the event loop and real threads raise the same two figures
        self._connector = Connector(target)
        self._pool = Pool(self._connector, SYNC_POOL_SIZE if target.sync else POOL_SIZE)
        self._checked = False

    def call(self, work: Callable[[Link], T]) -> T:
        """Do work on a pooled connection. Raises ``LogUnavailable`` for any failure."""
        if self.closed:
            raise LogUnavailable("the log is closed", stored="no")
        probe, connected = self.breaker.admit(), False
        try:
            with self._pool.lease(patience=PROBE_TIMEOUT if probe else CONNECT_TIMEOUT) as link:
                connected = True
                if probe:
                    link.call([("PING",)], timeout=PROBE_TIMEOUT)
                    self.breaker.succeeded(probe=True)
                    probe = False
                elif not self.breaker.closed:  # found to be down while we waited for a connection
                    raise LogUnavailable("Redis is down", RETRY_AFTER, stored="no")
                if link.reign is None:
                    self._join(link)
                answer = work(link)
                if link.reign != self.reign:
                    raise redis.ConnectionError("another Redis has become the master")
                return answer
        except LogRefused as error:
            raise LogUnavailable(str(error), RETRY_AFTER) from error
        except redis.RedisError as error:
            if probe or not connected or isinstance(error, redis.TimeoutError):
                self.breaker.failed(explain(error), probe=probe)
                probe = False
            raise self.unavailable(error) from error
        finally:
            if probe:
                self.breaker.forgo()

    def knows(self, position: int) -> None:
        """Raise ``seen`` to this position."""
        with self._rising:
            self.seen = max(self.seen, position)

    def holds(self, position: int) -> None:
        """Raise ``seen`` and ``held`` to this position."""
        with self._rising:
            self.seen = max(self.seen, position)
            self.held = max(self.held, position)

    def pipeline(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send commands in one write and return their replies."""
        return self.call(lambda link: link.call(commands))

    def one(self, *command: Argument) -> Any:
        """Send one command and return its reply."""
        return self.pipeline(command)[0]

    def run(self, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        """Run a script and return its result.

        keys: beyond the two that every script has.
        args: beyond ``seen``.
        """
        return self.call(lambda link: self.run_on(link, script, args, *keys))

    def run_on(self, link: Link, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        """Run a script on the given connection. Raises redis-py's errors."""
        return link.run(script, [self.keys.meta, self.keys.events, *keys], [format_id(self.seen), *args])

    def store(self, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        """Run a script that writes, as ``run`` does; raise ``LogUnavailable`` if replicas or disk do not confirm it."""
        every = [self.keys.meta, self.keys.events, *keys]
        return self.call(lambda link: self.store_on(link, script, every, [format_id(self.seen), *args]))

    def store_on(
        self, link: Link, script: Script, keys: Sequence[str], args: Sequence[Argument], wrote: frozenset[bytes] = ALL
    ) -> Any:
        """Run a script that writes on the given connection. All keys and arguments are given.

        wrote: how its answer begins if it has written; by default it always has.
        """
        if not self.target.confirmed:
            return link.run(script, keys, args)
        wanted, waits = self.target.replicas, list[Sequence[Argument]]()
        if wanted:
            waits.append(("WAIT", wanted, MISSING_TIMEOUT_MS if self._unconfirmed else REPLICA_TIMEOUT_MS))
        if self.target.sync:
            waits.append(("WAITAOF", 1, 0, SYNC_TIMEOUT_MS))
        answer, *confirmed = link.run_with(script, keys, args, *waits)
        if wrote is not ALL and answer[0] not in wrote:
            return answer
        if wanted:
            replicas = confirmed[0]
            self._unconfirmed = replicas < wanted
            if self._unconfirmed:
                message = f"stored, but only {replicas} of {wanted} replicas have it: a failover may lose it"
                raise LogUnavailable(message, RETRY_AFTER)
        if self.target.sync and not confirmed[-1][0]:
            message = f"stored, but not on Redis's disk after {SYNC_TIMEOUT_MS / 1000:g} s: a power cut may lose it"
            raise LogUnavailable(message, RETRY_AFTER)
        return answer

    def connect(self, timeout: float) -> Link:
        """Open a connection outside the pool; tell the breaker the outcome. Raises redis-py's errors."""
        if self.closed:
            raise LogUnavailable("the log is closed")
        try:
            link = self._connector.connect(timeout=timeout)
            try:
                # The kernel accepts connections for a Redis that hangs: only an answer says that it is back.
                link.call([("PING",)], timeout=COMMAND_TIMEOUT)
                self.breaker.succeeded()
                self._join(link)
            except BaseException:
                link.close()
                raise
            return link
        except LogRefused as error:
            raise LogUnavailable(str(error), RETRY_AFTER) from error
        except redis.RedisError as error:
            if not isinstance(error, redis.ResponseError):
                self.breaker.failed(explain(error))
            raise

    def unavailable(self, error: redis.RedisError) -> LogUnavailable:
        """Translate an error of redis-py."""
        if error_word(error) == "READONLY":
            self._pool.clear()  # the master is another one now: new connections find it
        return LogUnavailable(explain(error), RETRY_AFTER)

    def close(self) -> None:
        self.closed = True
        self._pool.clear()

    def _join(self, link: Link) -> None:
        """Ask a new connection's Redis whether it has lost events, as the module's text describes."""
        if not self._checked:
            check(link, self.keys, self.target)
            self._checked = True
        known = format_id(self.seen), format_id(self.held) if self.held else ""
        keys = self.keys.meta, self.keys.events
        lost, replication = link.run_with(JOIN, keys, known, ("INFO", "replication"))
        if lost:
            logger.error("Redis %s has lost %s, and perhaps events before it", self.target.where, known[1])
        found = _REPLICATION_ID.search(replication)
        link.reign = found[1].decode() if found else ""
        if link.reign != self.reign:
            self.reign = link.reign
            self._pool.clear()
