"""What a worker does when one of the service's own records passes (:mod:`sse.events.markers`).

    end of a channel    groups whose channels are all closed end
    erased channel      its events leave everything that this worker holds
    revocation          streams of a subject, of a channel, or of one request end where they are
    other controls      whoever registered for them is called back

Markers are records of their channel, so streams are sent them like any other.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, Protocol

from ..events.model import STREAM_END, STREAM_RESET, Record
from ..events.names import CONTROL_CHANNEL
from ..events.patterns import is_pattern, is_reserved, matcher
from ..log import LogUnavailable
from .ends import CHECK_INTERVAL, Ends, is_end
from .group import Group, Groups
from .replay import Replay
from .serving import Pulling, SocketStreams
from .stream import OWN_CLIENT, CloseReason, Stream
from .window import Window

logger = logging.getLogger("headwater.hub")

# The kind of control record that takes access back.
REVOKE: Final = "revoke"

# Revocations that are remembered, for streams that were opening meanwhile.
RECENT: Final = 1000

_MARKERS: Final = frozenset({STREAM_END, STREAM_RESET})


class Revocation(NamedTuple):
    """Which streams to end: those that match all of what is given.

    subject: of their owner; channel: a name or a pattern, any of whose channels they may get; request: the id of the
    request that opened it; at: when this worker read of it, monotonic seconds; reason: why they end.
    """

    subject: str | None
    channel: str | None
    request: str | None
    at: float
    reason: CloseReason = CloseReason.REVOKED

    @classmethod
    def of(cls, data: dict[str, Any], now: float) -> Revocation:
        return cls(data.get("subject") or None, data.get("channel") or None, data.get("request") or None, now)

    def covers(self, stream: Stream | Pulling) -> bool:
        if self.subject is None and self.channel is None and self.request is None:
            return False
        return stream.client != OWN_CLIENT and (
            self.subject in (None, stream.owner)
            and self.request in (None, stream.request_id)
            and (self.channel is None or _meet(self.channel, stream.group.subscription.channels))
        )


def _meet(selector: str, selectors: Collection[str]) -> bool:
    """Tell whether one channel may match both the selector and one of the others."""
    if not is_pattern(selector):
        return matcher(selectors)(selector)
    prefix = selector[:-1]
    return any(
        not is_reserved(other) and (other.startswith(prefix) or (is_pattern(other) and prefix.startswith(other[:-1])))
        for other in selectors
    )


class Obeying(Protocol):
    """The hub, as this module sees it."""

    advanced: threading.Condition
    window: Window
    groups: Groups
    ends: Ends
    replay: Replay
    pulling: set[Pulling]
    sockets: SocketStreams | None


class Control:
    """See the module's text."""

    def __init__(self, hub: Obeying) -> None:
        self._hub = hub
        #: the event types of the records that this module acts on
        self.kinds: frozenset[str] = _MARKERS | {REVOKE}
        self._callbacks: dict[str, list[Callable[[dict[str, Any]], None]]] = {REVOKE: [self._revoke]}
        self._recent: deque[Revocation] = deque(maxlen=RECENT)

    def on(self, kind: str, callback: Callable[[dict[str, Any]], None]) -> None:
        """Call back with the data of each control record of this kind; in the tailer, so it must return at once."""
        self._callbacks.setdefault(kind, []).append(callback)
        self.kinds |= {kind}

    def act(self, record: Record) -> None:
        """Do what a marker says, after the window and the groups have been given it. The hub's lock is held."""
        if record.event == STREAM_RESET:
            self._erase(record.channel, record.position)
        elif is_end(record.channel, record.event, record.data):
            self._hub.ends.passed(record.channel, record.position, closed=True)
            self.end(self._hub.ends.judge(self._hub.groups.named(record.channel)))

    def end(self, groups: Collection[Group]) -> None:
        """End groups whose end this worker has read. The hub's lock is held."""
        hub = self._hub
        for group in groups:
            if group.end <= hub.window.position:
                for waiter in group.waiters:
                    waiter.wake()
                if hub.sockets is not None:
                    hub.sockets.end_group(group)

    def check_ends(self) -> float:
        """End groups whose channels are closed, as the log says; return the seconds until the next look. A duty."""
        try:
            ending = self._hub.ends.check()
        except LogUnavailable:
            return CHECK_INTERVAL * 4  # their streams stay open until the log answers
        if ending:
            with self._hub.advanced:
                self.end(ending)
        return CHECK_INTERVAL

    def _erase(self, channel: str, position: int) -> None:
        """Forget a channel's events below a position."""
        hub = self._hub
        groups = frozenset(hub.groups.of(channel))
        hub.window.drop(channel, position)
        hub.groups.forms.envelopes.forget()
        hub.replay.erased()
        for group in groups:
            group.pending = [frame for frame in group.pending if frame.channel != channel or frame.position >= position]
        if hub.sockets is not None:
            hub.sockets.erase(groups)
        hub.ends.passed(channel, position, closed=False)
        hub.ends.judge(hub.groups.named(channel))

    def call_back(self, records: Sequence[Record]) -> None:
        """Tell those who registered of the control records of a batch. The hub's lock is not held."""
        for record in records:
            if record.channel == CONTROL_CHANNEL:
                for callback in self._callbacks.get(record.event or "", ()):
                    try:
                        callback(json.loads(record.data))
                    except Exception:
                        logger.exception("a control record could not be obeyed: %s", record.event)

    # ── revocations ─────────────────────────────────────────────────────────────────────────────────────────

    def _revoke(self, data: dict[str, Any]) -> None:
        revocation = Revocation.of(data, time.monotonic())
        hub = self._hub
        with hub.advanced:
            self._recent.append(revocation)
            pulling = list(hub.pulling)
        if hub.sockets is not None:
            hub.sockets.end_now(revocation.covers, CloseReason.REVOKED)
        for stream in pulling:
            if revocation.covers(stream):
                stream.end(CloseReason.REVOKED)

    def missed(self) -> None:
        """Note that revocations may have passed unseen; so streams that are opening now end. The hub's lock is held."""
        self._recent.append(Revocation(None, "*", None, time.monotonic(), CloseReason.FELL_BEHIND))

    def why_not(self, stream: Stream | Pulling) -> CloseReason | None:
        """Return why a stream that begins to be served must end: it was revoked while it was opening.

        Called under the hub's lock or in its event loop.
        """
        for one in reversed(self._recent):
            if one.at < stream.opened:
                break
            if one.covers(stream):
                return one.reason
        return None
