"""Imports into a Redis log (``scripts.load`` tells how): its records are given, with their ids."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Final, TypeVar

import redis

from ...events.model import Record, format_id
from ..base import LogRefused, LogUnavailable
from ..tools import Marks, Occupied
from .check import check
from .client import REPLICA_TIMEOUT_MS, SYNC_TIMEOUT_MS
from .codec import Keys
from .connector import Connector
from .errors import error_word, explain
from .link import Argument, Link
from .scripts import BEGIN, LOAD, LOAD_CLOSED, LOAD_END, LOAD_ERASE, Script
from .upkeep import CLAIM_MS
from .url import RedisUrl

T = TypeVar("T")

_SCAN: Final = 1000  # keys looked at in one step
_ERASE: Final = 500  # records removed in one step


class RedisLoader:
    """See ``tools.Loader``. force: even if the log is in use, or holds something."""

    def __init__(self, target: RedisUrl, prefix: str, *, force: bool) -> None:
        self._target = target
        self._keys = Keys(prefix)
        self._token = secrets.token_hex(8)
        self._force = force
        self._finished = False
        self._link: Link | None = None
        with self._translated():
            self._link = Connector(target).connect()
            _check(self._link, target, self._keys)
            _wait_until_free(self._link, target, self._keys, self._token, force)
            self._clear()

    def _clear(self) -> None:
        """Remove all of a log but its notes, and that it is being filled."""
        link, cursor = self._used(), b"0"
        root = self._keys.meta.removesuffix("meta")
        kept, notes = self._keys.meta.encode(), self._keys.note("").encode()
        while True:
            cursor, found = link.call([("SCAN", cursor, "MATCH", f"{root}*", "COUNT", _SCAN)])[0]
            gone = [key for key in found if key != kept and not key.startswith(notes)]
            if gone:
                link.call([("UNLINK", *gone)])
            if cursor == b"0":
                return

    def add(self, records: Sequence[Record]) -> None:
        numbers: dict[str, int] = {}
        body: list[Argument] = []
        for position, channel, event, retry, data in records:
            number = numbers.setdefault(channel, len(numbers) + 1)
            body += (number, format_id(position), data, event or "", "" if retry is None else retry)
        args: list[Argument] = [len(numbers), *numbers, *body]
        self._run(LOAD, args, *map(self._keys.channel, numbers))

    def close_channels(self, closed: Mapping[str, int]) -> None:
        pairs = chain.from_iterable((channel, format_id(position)) for channel, position in closed.items())
        self._run(LOAD_CLOSED, [*pairs], self._keys.closed, self._keys.names)

    def erase(self, channel: str, below: int) -> None:
        keys = self._keys.closed, self._keys.channel(channel)
        while self._run(LOAD_ERASE, [channel, format_id(below), _ERASE], *keys) == _ERASE:
            pass

    def finish(self, marks: Marks, *, tell: bool, receipt: int = 0) -> None:
        args: list[Argument] = [*map(format_id, marks), int(tell), int(self._force), receipt]
        with self._translated():
            link, every = self._used(), [self._keys.meta, self._keys.events, self._keys.claim, self._keys.closed]
            (state,) = link.run(LOAD_END, every, ["0-0", self._token, *args])
            if state == b"used":
                raise _in_use(self._target)
            if state != b"done":
                raise _begun_again(self._target)
            self._finished = True
            if wanted := self._target.replicas:
                replicas = link.call([("WAIT", wanted, REPLICA_TIMEOUT_MS)], timeout=2 * REPLICA_TIMEOUT_MS / 1000)[0]
                if replicas < wanted:
                    raise LogUnavailable(f"imported, but only {replicas} of {wanted} replicas have it yet")
            if self._target.sync and not link.call([("WAITAOF", 1, 0, SYNC_TIMEOUT_MS)])[0][0]:
                raise LogUnavailable("imported, but not on Redis's disk yet")

    def close(self) -> None:
        """Leave an empty log, or what another process has begun since; of a log that held something, one that is closed
        to everybody until this is repeated."""
        if self._link is not None:
            try:
                if not (self._finished or self._force) and self._run(LOAD_CLOSED, []):
                    self._clear()
                    self._link.call([("DEL", self._keys.meta)])
            except (redis.RedisError, LogUnavailable):
                pass
            self._link.close()

    def _run(self, script: Script, args: Sequence[Argument], *keys: str) -> int:
        with self._translated():
            every = [self._keys.meta, self._keys.events, *keys]
            done: int = self._used().run(script, every, ["0-0", self._token, *args])
            if done == (-1 if script is LOAD_ERASE else 0):
                raise _begun_again(self._target)
            return done

    def _used(self) -> Link:
        assert self._link is not None
        return self._link

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise LogUnavailable(explain(error)) from error


def check_free(target: RedisUrl, prefix: str) -> None:
    """Raise ``Occupied`` if the log is in use, or holds something."""
    look(target, prefix, lambda link, keys: _wait_until_free(link, target, keys, "", force=False))


def receipt(target: RedisUrl, prefix: str) -> int:
    """Return the receipt of the import that made this log, 0 for none."""
    return look(target, prefix, lambda link, keys: int(link.call([("HGET", keys.meta, "imported")])[0] or 0))


def look(target: RedisUrl, prefix: str, work: Callable[[Link, Keys], T]) -> T:
    """Do this on a connection of its own. Raises ``LogUnavailable``, ``LogRefused``."""
    keys = Keys(prefix)
    try:
        link = Connector(target).connect()
        try:
            return work(link, keys)
        finally:
            link.close()
    except redis.RedisError as error:
        raise LogUnavailable(explain(error)) from error


def _check(link: Link, target: RedisUrl, keys: Keys) -> None:
    """Raise ``LogRefused`` if this Redis cannot hold a log; one of another format, or half imported, may be there."""
    try:
        check(link, keys, target)
    except (redis.ResponseError, LogRefused) as error:
        cause = error if isinstance(error, redis.ResponseError) else error.__cause__
        if not (isinstance(cause, redis.ResponseError) and error_word(cause) in ("RESTORING", "FORMAT")):
            raise


def _wait_until_free(link: Link, target: RedisUrl, keys: Keys, token: str, force: bool) -> None:
    """Begin, or look only (without a token). The mark of a service that has just ended expires soon."""
    deadline = time.monotonic() + CLAIM_MS / 1000 + 0.5
    every = [keys.meta, keys.events, keys.claim, keys.closed]
    while True:
        state, *more = link.run(BEGIN, every, ["0-0", token, int(force)])
        if state != b"used":
            break
        if time.monotonic() > deadline:
            raise _in_use(target)
        time.sleep(0.2)
    if state == b"full":
        records, last = more
        raise Occupied(f"the log in Redis {target.where} holds {records:,} events, through {last.decode()}")
    if state == b"other":
        raise Occupied(f"the log in Redis {target.where} has format {more[0].decode()}")


def _in_use(target: RedisUrl) -> Occupied:
    return Occupied(f"the log in Redis {target.where} is in use: stop the service")


def _begun_again(target: RedisUrl) -> LogUnavailable:
    return LogUnavailable(f"another process has begun to fill the log in Redis {target.where} meanwhile")
