"""How the Redis log calls its Redis: a pooled connection, through the breaker, with errors in the log's own words.

**Whose Redis is it?** A replica that takes over, or a Redis that restarts, may lack events that this worker has
stored or read; and nothing but this worker knows. So before a new connection is used, its Redis is asked for the
newest of these. If that is gone, the log is marked, in Redis and for everybody (`_redis_scripts`, ``JOIN``).

What is asked for has to be from the time before. So when another master is found at the end of a new connection, all
older ones are given up, with the answers that may still come over them: an old master that does not know yet that it
is one would go on acknowledging events that are about to be gone.
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
from .link import COMMAND_TIMEOUT, CONNECT_TIMEOUT, RETRY_AFTER, Argument, Connector, Link, Pool, error_word, explain
from .scripts import JOIN, Script
from .url import RedisUrl

logger = logging.getLogger("headwater.log.redis")

T = TypeVar("T")

# A master has one of its own: a replica takes a new one when it is promoted, a Redis that starts as a master, too.
_REPLICATION_ID: Final = re.compile(rb"^master_replid:(\w+)", re.MULTILINE)

# While Redis is known to be down, the one request that probes waits this long to connect, and for its answer: so it,
# too, is over in less than 250 ms.
PROBE_TIMEOUT: Final = 0.1


class Client:
    """One worker's access to the log's keys.

    seen: the newest position that this worker, and so perhaps a client, knows; scripts are told. held: the newest
    event that it has stored or read. (Both only rise: `knows`, `holds`.) history: the creation marker and the mark of
    loss of the log that this worker works on. followed: the newest position that a follower handed over. reign: the
    master that was found last, by its replication id; "" where a Redis does not say.
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
        self._rising = native_lock()  # the event loop and real threads raise the same two figures
        self._connector = Connector(target)
        self._pool = Pool(self._connector)
        self._checked = False

    def call(self, work: Callable[[Link], T]) -> T:
        """Do work on a pooled connection. Raises `LogUnavailable` for whatever goes wrong."""
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
        """Raise `seen` to this position."""
        with self._rising:
            self.seen = max(self.seen, position)

    def holds(self, position: int) -> None:
        """Raise `seen` and `held` to this position."""
        with self._rising:
            self.seen = max(self.seen, position)
            self.held = max(self.held, position)

    def pipeline(self, *commands: Sequence[Argument]) -> list[Any]:
        """The replies to commands sent in one write."""
        return self.call(lambda link: link.call(commands))

    def one(self, *command: Argument) -> Any:
        """The reply to one command."""
        return self.pipeline(command)[0]

    def run(self, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        """What a script returns. keys: beyond the two that every script has; args: beyond `seen`."""
        return self.call(lambda link: self.run_on(link, script, args, *keys))

    def run_on(self, link: Link, script: Script, args: Sequence[Argument], *keys: str) -> Any:
        """The same on a certain connection, with redis-py's errors."""
        return link.run(script, [self.keys.meta, self.keys.events, *keys], [format_id(self.seen), *args])

    def connect(self, timeout: float) -> Link:
        """A new connection outside of the pool and the breaker, which learns how it went. Redis-py's errors."""
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
        """What the log says of an error of redis-py."""
        if error_word(error) == "READONLY":
            self._pool.clear()  # the master is another one now: new connections find it
        return LogUnavailable(explain(error), RETRY_AFTER)

    def close(self) -> None:
        self.closed = True
        self._pool.clear()

    def _join(self, link: Link) -> None:
        """See the module's text."""
        if not self._checked:
            check(link, self.keys, self.target.where, self.target.replicas)
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
