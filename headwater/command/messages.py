"""What ``listen`` prints and ``publish`` meets, whether by HTTP or in the log itself."""

from __future__ import annotations

from typing import Final, NamedTuple

HEARTBEAT: Final = "heartbeat"
RESET: Final = "stream-reset"
END: Final = "stream-end"
CLOSED: Final = "closed: no more events will come"
CONTROL: Final = frozenset({RESET, END})  # not published by anybody: the service tells its listeners


class Message(NamedTuple):
    """An event, or what the service has to tell (``CONTROL``). channel: None if the service did not say."""

    id: str | None
    channel: str | None
    event: str | None
    data: str


class NotNow(Exception):
    """Nothing answers, or it asks to come back.

    retry_after: seconds; stored: of a publish, "no" or "unknown": whether the event may be stored all the same.
    """

    def __init__(self, message: str, retry_after: float = 1.0, stored: str = "unknown") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.stored = stored
