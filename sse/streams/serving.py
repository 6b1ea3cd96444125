"""What a hub asks of those who serve its streams: generator streams, and a worker's fan-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from .group import Group
from .stream import CloseReason, State, Stream


class Pulling(Protocol):
    """A generator stream, or a request that waits as one does."""

    client: str
    owner: str
    request_id: str
    opened: float
    group: Group
    state: State

    def wake(self) -> None: ...

    def end(self, reason: CloseReason) -> None: ...


class SocketStreams(Protocol):
    """The streams whose sockets a worker has taken over."""

    def wake(self) -> None:
        """Serve the groups in ``hub.dirty``."""

    def adopt(self, stream: Stream, fd: int) -> None:
        """Serve this stream on its socket's descriptor, and own both from now on."""

    def counts(self) -> Counter[str]:
        """Return the number of streams by state."""

    def end_live(self) -> None:
        """End every live stream where it is: the log does not have what follows."""

    def end_group(self, group: Group) -> None:
        """End a group's streams once they have been sent everything through ``group.end``."""

    def end_now(self, wanted: Callable[[Stream], bool], reason: CloseReason) -> None:
        """End the streams that are wanted where they are, soon."""

    def erase(self, groups: Collection[Group]) -> None:
        """Send no more of what is on its way to these groups' streams: it may have events that were erased."""

    def let_all_go(self) -> None:
        """End every stream: in the log as it is now, their cursors mean nothing."""

    def await_round(self) -> None:
        """Wait while nothing is written; what arrives meanwhile is read in one go then."""
