"""The canary: in every worker a real subscriber, on a real socket pair, through hub, group and write path.

The hub sends each subscriber of ``_canary`` a heartbeat a second. What is judged is the age of the newest
that came
out at the other end: "200, but no events" is the failure that this exists for.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from ..probe import Heartbeats
from ..source import Source

logger = logging.getLogger("headwater.health")

CHANNEL: Final = "_canary"

# A canary that cannot subscribe tries again after this long; the hub may not be up yet.
RETRY: Final = 0.5

# A wait for bytes is cut into pieces of this length, to notice that the process ends.
POLL: Final = 1.0

# After this long without a heartbeat it subscribes anew, as a client does that waits in vain. Longer than
# HEALTH_CANARY_MAX_AGE, so that a stream which went dead is reported before it is replaced.
RESUBSCRIBE: Final = 10.0


class Canary:
    """One subscriber, in a thread (a greenlet under gevent) until it is stopped."""

    def __init__(self, source: Callable[[], Source | None], stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._complained = ""
        self.seen = 0.0  # when the newest heartbeat was made, monotonic seconds; 0.0: none yet

    def run(self) -> None:
        while not self._stop.is_set():
            source = self._source()
            try:
                if source is not None:
                    self._listen(source)
            except Exception as error:  # whatever the stream does, the canary comes back
                if repr(error) != self._complained:
                    self._complained = repr(error)
                    logger.warning("the canary lost its stream and subscribes again: %r", error)
            self._stop.wait(RETRY)

    def _listen(self, source: Source) -> None:
        ours, theirs = socket.socketpair()
        try:
            try:
                source.attach(theirs, CHANNEL)
            except RuntimeError:  # no takeover in this worker
                theirs.close()
                self._pull(source)
                return
            except BaseException:
                theirs.close()
                raise
            self._receive(ours)
        finally:
            ours.close()

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

    def _pull(self, source: Source) -> None:
        heartbeats = Heartbeats()
        for piece in source.open(CHANNEL):
            self._note(heartbeats.feed(piece))
            if self._stop.is_set():
                return

    def _note(self, made: list[int]) -> bool:
        for unix_ms in made:
            # A heartbeat that lay in a buffer is as old as its own time says. A clock that is stepped
            # falsifies one heartbeat at most, because the next is made by the new time.
            delay = max(time.time() - unix_ms / 1000, 0.0)
            self.seen = max(self.seen, time.monotonic() - delay)
            self._complained = ""
        return bool(made)
