"""An EventSource with a diary, and the check: acknowledged means seen once and in order, or reset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos.recorder import Acknowledged
from tests.support.ledger import check, position
from tests.support.resuming_client import ResumingClient
from tests.support.sse_parser import StreamEvent


class Told(NamedTuple):
    """One block. at: ``time.monotonic``."""

    at: float
    block: StreamEvent


class Reader(ResumingClient):
    """Follows some channels. ``diary``: all blocks in the order of arrival, over all connections."""

    def __init__(self, port: int, channels: Sequence[str] = ("a",), *, retry: int = 100) -> None:
        self.channels = tuple(channels)
        self.diary: list[Told] = []
        query = "&".join(f"channel={channel}" for channel in channels)
        super().__init__(
            port,
            f"/events?{query}",
            retry=retry,
            on_event=lambda block: self.diary.append(Told(time.monotonic(), block)),
        )

    def stop(self) -> None:
        """End soon; :meth:``close`` waits for it."""
        self._stop.set()

    def heartbeats(self, since: float, until: float) -> int:
        return sum(1 for at, block in self.diary if block.is_heartbeat and since <= at < until)

    def wait_for_first_after(self, moment: float, timeout: float) -> float:
        """Wait for the first event after that time, and return when it arrived."""
        self.wait_for(lambda _: self.first_after(moment), timeout)
        return self.first_after(moment) or 0.0

    def first_after(self, moment: float) -> float | None:
        """Return when the first event after that time arrived."""
        return next((entry.at for entry in self.ledger if entry.at >= moment), None)

    def owed(self, acknowledged: Sequence[Acknowledged]) -> list[str]:
        begin = position(self.control[0].id or "0-0")
        return [one.id for one in acknowledged if one.channel in self.channels and one.position > begin]

    def wait_for_last(self, acknowledged: Sequence[Acknowledged], timeout: float) -> None:
        self.wait_connected(timeout)
        owed = self.owed(acknowledged)
        assert owed, "nothing was published for this client"
        self.wait_for(lambda one: one.ledger and one.ledger[-1].id == owed[-1], timeout)


def stop_all(readers: Sequence[Reader]) -> None:
    """Stop all at once, then wait for each."""
    for reader in readers:
        reader.stop()


class Reckoning(NamedTuple):
    """A fault's result. lost: acknowledged events gone with the old log, of which a reset told every client."""

    fault: str
    acknowledged: int
    clients: int
    deliveries: int
    reconnects: int
    resets: int
    lost: int
    note: str

    def __str__(self) -> str:
        return (
            f"{self.fault}: {self.acknowledged} acknowledged, {self.clients} clients saw {self.deliveries}, "
            f"{self.reconnects} reconnects; lost, repeated, out of order 0"
            + (f"; {self.lost} gone with the old log, told by {self.resets} resets" if self.resets else "")
            + (f"; {self.note}" if self.note else "")
        )


BOOK: list[Reckoning] = []  # of this process; printed at the end of the run


def reckon(
    fault: str,
    readers: Sequence[Reader],
    acknowledged: Sequence[Acknowledged],
    *,
    timeout: float = 20.0,
    note: str = "",
) -> Reckoning:
    """Check that every client saw every acknowledged event of its channels once, in order, and nothing else."""
    for reader in readers:
        reader.wait_for_last(acknowledged, timeout)
        assert reader.failed is None, f"a browser would have given up for ever: {reader.failed}"
        assert not reader.resets, f"there was nothing to tell: {reader.resets}"
        check(reader.ids, reader.owed(acknowledged), reader)
        data = {one.id: one.data for one in acknowledged}
        assert all(data[entry.id] == entry.data for entry in reader.ledger), "an event has another's data"
    return _book(fault, readers, acknowledged, 0, note)


def reckon_confirmed(
    fault: str, readers: Sequence[Reader], acknowledged: Sequence[Acknowledged], *, timeout: float = 20.0, note: str = ""
) -> int:
    """Check that every client saw every acknowledged event of its channels once and in order. Streams do not wait for the
    replicas, so a client may have seen more events, which died with the master unacknowledged, if a reset told it.
    Return how many such events were seen."""
    known = {one.id for one in acknowledged}
    unconfirmed: set[str] = set()
    for reader in readers:
        reader.wait_for_last(acknowledged, timeout)
        assert reader.failed is None, f"a browser would have given up for ever: {reader.failed}"
        check([name for name in reader.ids if name in known], reader.owed(acknowledged), reader)
        more = [name for name in reader.ids if name not in known]
        assert len(more) == len(set(more)), f"{reader}: twice"
        assert reader.resets or not more, f"{reader} was not told that {more} are gone"
        unconfirmed.update(more)
    _book(fault, readers, acknowledged, 0, note)
    return len(unconfirmed)


def reckon_replaced(
    fault: str,
    readers: Sequence[Reader],
    acknowledged: Sequence[Acknowledged],
    kept: Sequence[str],
    *,
    timeout: float = 20.0,
    note: str = "",
) -> Reckoning:
    """Check after an emptier log, with the ids ``kept``, has replaced the log: a client may miss the other events if a
    reset told it; after that it has seen everything kept, once and in order."""
    held = set(kept)
    lost = [one for one in acknowledged if one.id not in held]
    for reader in readers:
        reader.wait_for_last(acknowledged, timeout)
        assert reader.failed is None, f"a browser would have given up for ever: {reader.failed}"
        owed, seen = reader.owed(acknowledged), set(reader.ids)
        unseen = [name for name in owed if name not in seen]
        assert held.isdisjoint(unseen), f"{reader}: not seen although the log has it: {unseen[:3]}"
        if unseen:
            assert reader.resets, f"{reader} was not told that it has missed {unseen[:3]}"
        parts: list[list[str]] = [[]]  # ids between two resets
        since = None
        for _, block in reader.diary:
            if block.event == "stream-reset":
                parts.append([])
                since = position(block.id or "0-0")
            elif not block.is_control:
                parts[-1].append(block.id or "")
        for part in parts:
            assert [position(name) for name in part] == sorted({position(name) for name in part}), "order, or twice"
        if since is not None:
            by_id = {one.id: one for one in acknowledged}
            expected = [name for name in kept if position(name) > since and by_id[name].channel in reader.channels]
            check(parts[-1], expected, reader)
    return _book(fault, readers, acknowledged, len(lost), note)


def _book(
    fault: str, readers: Sequence[Reader], acknowledged: Sequence[Acknowledged], lost: int, note: str
) -> Reckoning:
    entry = Reckoning(
        fault,
        len(acknowledged),
        len(readers),
        sum(len(reader.ledger) for reader in readers),
        sum(reader.reconnects for reader in readers),
        sum(len(reader.resets) for reader in readers),
        lost,
        note,
    )
    BOOK.append(entry)
    return entry
