"""A log that is used at random."""

from __future__ import annotations

import random

from sse.events.markers import own_event
from sse.events.model import Event, Record
from sse.log import Log, RetainRule
from tests.sse.log.conftest import trim_all

LIMIT, BYTES = 100_000, 1 << 30
CHANNELS = ["a", "a:1", "b", "c:long.name_with-all"]


class Life:
    """A log that somebody uses, and all that it ever stored. The dice decide."""

    def __init__(self, log: Log, dice: random.Random) -> None:
        self._log, self._dice = log, dice
        self.stored: list[Record] = []

    def _keep(self, events: list[Event], close: list[str]) -> None:
        positions = self._log.append(events, close=close)
        self.stored += [record for record in self._log.read(None, positions[0] - 1, LIMIT, BYTES)]

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            open_ = [name for name in CHANNELS if name not in self._log.closed(CHANNELS)]
            match self._dice.randrange(12):
                case 0 if open_:
                    self._keep([], [self._dice.choice(open_)])
                case 1:
                    channel = self._dice.choice(CHANNELS)
                    through = self._log.erase(channel).through
                    self.stored = [record for record in self.stored if record.channel != channel]
                    self.stored += self._log.read([channel], through - 1, 1, BYTES)
                case 2:
                    self._log.retain(self._dice.randrange(1, 20), 86_400, [RetainRule("b", 2, None)] * self._dice.randrange(2))
                    trim_all(self._log)
                    self._log.retain(100_000, 86_400)
                case _:
                    events = [self._event(channel) for channel in open_ for _ in range(self._dice.randrange(3))]
                    self._keep(events or [own_event("_control", "revoke", "{}")], [])

    def _event(self, channel: str) -> Event:
        dice = self._dice
        data = "".join(dice.choices("abž☕\n\r\0\\\"{}😀", k=dice.randrange(20)))
        return Event(channel, data, dice.choice([None, "created", "žluť"]), dice.choice([None, 0, 3000]))
