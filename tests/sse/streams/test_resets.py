"""The truth of ``stream-reset``, over each engine: a client is told of a gap if and only if events of its own channels
that follow its cursor are gone.

Random steps (publishing, erasing, trimming by rules and by number, a worker that is cut off or starts again, clients
that come, read and go) through a real hub, its replay and its generator streams. What must be true is known from plain lists.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from sse.events.model import Event, format_id, parse_id
from sse.events.patterns import reduced
from sse.log import RetainRule
from tests.sse.log.redis_place import redis_url
from tests.sse.worker_parts import THREE_FRAMES, Parts, Pulled
from tests.support.wait import eventually

CHANNELS = ("loud:1", "loud:2", "short:1", "quiet", "other")
SELECTORS = (*CHANNELS, "*", "loud:*", "short:*", "q*", "none:*")
RULES = (RetainRule("loud:*", 5, None), RetainRule("short:*", None, 0.05), RetainRule("quiet", None, None))
KEPT_OF_THE_REST = 6


class Client:
    """One client over many connections.

    seen: the positions that it got; told: those of events that were gone when it was told of a gap.
    """

    def __init__(self, selectors: frozenset[str], cursor: int | None) -> None:
        self.selectors = selectors
        self.cursor = cursor
        self.first: int | None = None
        self.seen: list[int] = []
        self.told: set[int] = set()
        self.connection: Pulled | None = None

    def wants(self, channel: str) -> bool:
        return any(channel == s or (s[-1] == "*" and channel.startswith(s[:-1])) for s in self.selectors)


class World:
    def __init__(self, url: str, seed: int, closing: ExitStack) -> None:
        self.random = random.Random(seed)
        self.url, self.closing = url, closing
        self.published: dict[int, str] = {}  # markers, too
        self.markers: set[int] = set()
        self.erased: set[int] = set()
        self.clients: list[Client] = []
        self.workers: list[Parts] = []
        self.start_worker()
        self.began = self.log.bounds().began
        self.steps: list[tuple[int, Callable[[], None]]] = [
            (10, self.publish),
            (5, self.trim),
            (1, self.erase),
            (1, self.wait),
            (6, self.client_comes),
            (10, self.client_reads),
            (5, self.client_loses_its_connection),
            (1, self.cut_off),
            (1, self.start_worker),
        ]

    @property
    def worker(self) -> Parts:
        return self.workers[-1]

    @property
    def log(self):  # type: ignore[no-untyped-def]
        return self.worker.log.inner

    def start_worker(self) -> None:
        """Begin a new worker, except over a log that only one process can use."""
        if self.workers and not self.log.shared:
            return
        for client in self.clients:
            self.drop(client)
        window = self.random.choice([THREE_FRAMES, 3000, 10**7])
        parts = Parts(self.url, SSE_HEARTBEAT=0.01, SSE_WINDOW_BYTES=window, SSE_RETAIN_EVENTS=KEPT_OF_THE_REST)
        parts.hub.retention.trim = lambda: 3600.0  # type: ignore[method-assign]  # trimming is a step of this test
        parts.log.inner.retain(KEPT_OF_THE_REST, 10**6, RULES)
        self.closing.enter_context(parts)
        self.workers.append(parts)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self) -> None:
        channels = self.random.choices(CHANNELS, [6, 3, 3, 1, 3], k=self.random.choice([1, 1, 3, 9]))
        positions = self.log.append([Event(channel, "." * self.random.choice([1, 300])) for channel in channels])
        self.published.update(zip(positions, channels, strict=True))
        self.worker.reach(positions[-1])

    def erase(self) -> None:
        channel = self.random.choice(CHANNELS)
        held = self.held()
        through = self.log.erase(channel).through
        self.erased |= {p for p in held if self.published[p] == channel}
        self.published[through] = channel
        self.markers.add(through)
        self.worker.reach(through)

    def trim(self) -> None:
        while self.log.trim():
            pass

    def wait(self) -> None:
        time.sleep(0.06)  # until the rule by age trims what there is now

    def cut_off(self) -> None:
        """The worker loses the log, in which others store and trim; then it has the log again."""
        log = self.worker.log
        log.down = True
        follows = log.asked["follow"]
        channels = self.random.choices(CHANNELS, k=self.random.choice([1, 10]))
        positions = self.log.append([Event(channel, "x") for channel in channels])
        self.published.update(zip(positions, channels, strict=True))
        eventually(lambda: log.asked["follow"] > follows, 5, interval=0.001)
        self.worker.hub.tailer.answered_at -= 60  # long ago
        if self.random.random() < 0.7:
            self.trim()
        log.down = False
        self.worker.reach(positions[-1])

    def client_comes(self) -> None:
        if len(self.clients) >= 8:
            self.drop(self.clients.pop(self.random.randrange(8)))
        known = [self.began - 5, self.began, *self.published]
        cursor = self.random.choice([None, 0, self.random.choice(known), known[-1]])
        self.clients.append(Client(reduced(self.random.sample(SELECTORS, self.random.randrange(1, 4))), cursor))

    def client_reads(self) -> None:
        if self.clients:
            client = self.random.choice(self.clients)
            if client.connection is None:
                self.connect(client)
            for _ in range(self.random.choice([1, 1, 2, 10])):
                if not self.turn(client):
                    break

    def client_loses_its_connection(self) -> None:
        if self.clients:
            self.drop(self.random.choice(self.clients))

    # ── what must be true ───────────────────────────────────────────────────────────────────────────────────

    def own(self, client: Client, after: int) -> set[int]:
        return {position for position, channel in self.published.items() if position > after and client.wants(channel)}

    def held(self) -> set[int]:
        return {record.position for record in self.log.read(None, 0, 10**6, 10**9)}

    def connect(self, client: Client) -> None:
        cursor = client.cursor
        text = None if cursor is None else "earliest" if cursor == 0 else format_id(cursor)
        connection = client.connection = self.worker.open(text, *client.selectors, since=True)
        resets = [json.loads(block.data or "") for block in connection.blocks if block.event == "stream-reset"]
        begin = connection.start.cursor
        if client.first is None:
            client.first = begin if cursor is None else cursor
        gone = self.own(client, client.first if cursor is None else cursor) - self.held() - self.erased
        client.cursor = begin
        if cursor is None or cursor == 0:
            assert not resets, "without a cursor of its own there is nothing that it could have missed"
            client.told |= gone  # it wants what there is
            return
        for reset in resets:
            if reset["reason"] == "before-log":
                assert cursor < self.began and not gone
            else:
                assert reset["reason"] == "expired"
                assert gone, "none of its own events after its cursor is gone"
                client.told |= gone
        if not resets:
            assert cursor >= self.began

    def turn(self, client: Client) -> bool:
        """Read what comes next; return whether the connection is still there."""
        connection = client.connection
        assert connection is not None
        blocks = connection.turn()
        client.cursor = parse_id(connection.last_event_id)
        if blocks is None:
            client.connection = None
            return False
        for block in blocks:
            if not block.is_control:
                client.seen.append(parse_id(block.id or ""))
        return True

    def drop(self, client: Client) -> None:
        if client.connection is not None:
            client.connection.close()
            client.connection = None

    def catch_up(self, client: Client) -> None:
        """Read until the client has all there is."""
        for _ in range(1000):
            if client.connection is None:
                self.connect(client)
            self.turn(client)
            if client.connection is not None and client.connection.stream.state == "live":
                break
        else:
            raise AssertionError("a client never catches up")

    def check(self, client: Client) -> None:
        assert client.first is not None
        assert client.seen == sorted(set(client.seen)), "an event came twice, or out of order"
        owed = self.own(client, client.first) - self.markers
        assert set(client.seen) <= owed, "an event that it did not ask for"
        held = self.held()
        for position in owed - set(client.seen) - self.erased:
            assert position not in held, "an event that the log still has never came"
            assert position in client.told, "an event is gone, and nobody told the client"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Returns the URL of an empty log, each time."""
    counter = itertools.count()
    urls = {"memory": lambda: "memory:", "sqlite": lambda: f"sqlite:///{tmp_path}/{next(counter)}.db"}
    return urls.get(request.param, lambda: redis_url(request))


def play(url: str, seed: int, steps: int) -> None:
    with ExitStack() as closing:
        world = World(url, seed, closing)
        choices, weights = [step for _, step in world.steps], [weight for weight, _ in world.steps]
        for _ in range(steps):
            (step,) = world.random.choices(choices, weights)
            step()
        for client in world.clients:
            world.catch_up(client)
            world.check(client)
            world.drop(client)


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rules trim at once."""
    monkeypatch.setattr("sse.log.rules.RULE_GRACE", 0)
    monkeypatch.setattr("sse.log.redis.upkeep.RULE_GRACE", 0)
    monkeypatch.setattr("sse.streams.tailer.RETRY_FIRST", 0.005)
    monkeypatch.setattr("sse.streams.tailer.RETRY_MOST", 0.005)


@pytest.mark.parametrize("seed", range(6))
def test_a_client_is_told_of_a_gap_if_and_only_if_events_of_its_own_are_gone(
    fresh_url: Callable[[], str], seed: int
) -> None:
    play(fresh_url(), seed, 120)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_more_random_lives(fresh_url: Callable[[], str]) -> None:
    for seed in range(1000, 1100):
        play(fresh_url(), seed, 200)
