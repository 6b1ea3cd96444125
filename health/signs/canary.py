"""The canary: a real subscriber in every worker, on a socket pair, behind the hub, its group and the write path.

The hub sends each subscriber of ``_canary`` a heartbeat a second. Readiness judges the age of the newest one that
arrived, and so detects a worker that answers 200 but delivers no events.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from ..probe import Heartbeats
from ..source import Source

logger = logging.getLogger("headwater.health")

CHANNEL: Final = "_canary"

# Seconds until a canary that could not subscribe tries again. The hub may not have started yet.
RETRY: Final = 0.5

# Seconds between two checks, during a wait for bytes, whether the process is ending.
POLL: Final = 1.0

# Seconds without a heartbeat until the canary subscribes again, as a client would. Longer than HEALTH_CANARY_MAX_AGE,
# so that readiness reports a dead stream before it is replaced.
RESUBSCRIBE: Final = 10.0


class Canary:
    """One subscriber; ``run`` is its thread (a greenlet under gevent)."""

    def __init__(self, source: Callable[[], Source | None], stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._logged = ""  # the last error, logged once until a heartbeat arrives
        self.seen = 0.0  # when the newest heartbeat was made, monotonic seconds; 0.0: none yet

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                stream = self._open()
                if isinstance(stream, socket.socket):
                    with stream:
                        self._receive(stream)
                elif stream is not None:
                    self._pull(stream)
            except Exception as error:  # whatever the stream raises, subscribe again
                if repr(error) != self._logged:
                    self._logged = repr(error)
                    logger.warning("the canary lost its stream and subscribes again: %r", error)
            self._stop.wait(RETRY)

    def _open(self) -> socket.socket | Iterator[bytes] | None:
        """Open the stream. Keep no reference to the source, so that an app that is no longer used can be collected."""
        source = self._source()
        if source is None:
            return None
        ours, theirs = socket.socketpair()
        try:
            source.attach(theirs, CHANNEL)
        except BaseException as error:
            ours.close()
            theirs.close()
            if isinstance(error, RuntimeError):  # this worker does not take sockets over
                return source.open(CHANNEL)
            raise
        return ours

    def _receive(self, sock: socket.socket) -> None:
        heartbeats = Heartbeats()
        quiet_since = time.monotonic()
        sock.settimeout(POLL)
        while not self._stop.is_set():
            try:
                piece = sock.recv(65536)
            except TimeoutError:
                if time.monotonic() - quiet_since > RESUBSCRIBE:
                    raise TimeoutError(f"no heartbeat for {RESUBSCRIBE:g} s") from None
                continue
            if not piece:
                return  # a lease or a drain ended it
            if self._note(heartbeats.feed(piece)):
                quiet_since = time.monotonic()

    def _pull(self, pieces: Iterator[bytes]) -> None:
        heartbeats = Heartbeats()
        for piece in pieces:
            self._note(heartbeats.feed(piece))
            if self._stop.is_set():
                return

    def _note(self, made: list[int]) -> bool:
        for unix_ms in made:
            # A heartbeat may have waited in a buffer, so use its own time. A step of the wall clock falsifies only one
            # heartbeat, because the next one has the new time.
            delay = max(time.time() - unix_ms / 1000, 0.0)
            self.seen = max(self.seen, time.monotonic() - delay)
            self._logged = ""
        return bool(made)
