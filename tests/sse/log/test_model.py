"""Every engine against a simple model: random publishes, closes, erasures, rules, trims and cursors.

``gone`` tells the truth, reading with patterns is filtering, the list of channels is what is there, and nothing is lost.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sse.events.markers import is_marker
from sse.events.model import Event, Record
from sse.events.patterns import matcher
from sse.log import ChannelClosed, ChannelInfo, IdempotencyConflict, Log, RetainRule, open_log
from tests.sse.log.redis_place import redis_server
from tests.support.wait import eventually

LIMIT, BYTES = 100_000, 1 << 30

NAMES = ("a", "a:1", "a:2", "a:1:x", "b", "b1", "c")
PATTERNS = ("*", "a*", "a:*", "a:1*", "b*", "q*", "_*")
CHANNELS = st.sampled_from(NAMES)
SELECTIONS = st.sets(st.sampled_from((*NAMES, *PATTERNS, "nobody")), min_size=0, max_size=4)
DATA = st.sampled_from(("", "x", "é𝄞", "line\nline", "x" * 50))

# A rule's age is either none that ends within a test, or one that has always passed (see ``trim``).
AGES = st.sampled_from((None, 86_400.0, 0.001))
RULES = st.lists(
    st.builds(RetainRule, st.sampled_from((*NAMES, *PATTERNS[:-1])), st.none() | st.integers(1, 4), AGES), max_size=3
)


class Model:
    """What a log must hold, by the plainest means."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.trimmed: dict[str, int] = defaultdict(int)
        self.closed: dict[str, int] = {}
        self.keys: dict[str, tuple[bytes, list[int]]] = {}
        self.latest = 0
        self.events, self.seconds, self.rules = 10**6, 86_400.0, ()  # type: int, float, tuple[RetainRule, ...]

    def of(self, channels: Collection[str], after: int = 0) -> list[Record]:
        wanted = matcher(channels)
        return [record for record in self.records if record.position > after and wanted(record.channel)]

    def rule(self, channel: str) -> RetainRule | None:
        return next((rule for rule in self.rules if matcher([rule.pattern])(channel)), None)

    def trim(self) -> None:
        """Remove all that retention no longer keeps."""
        rest = [record for record in self.records if self.rule(record.channel) is None]
        kept = set(rest[max(len(rest) - self.events, 0) :] if self.seconds > 1 else ())
        for channel in {record.channel for record in self.records} - {record.channel for record in rest}:
            rule = self.rule(channel)
            assert rule is not None
            held = [record for record in self.records if record.channel == channel]
            if rule.seconds is not None and rule.seconds < 1:
                continue
            end = [record for record in held if record.position == self.closed.get(channel)]
            others = [record for record in held if record not in end]
            kept.update(end, others if rule.events is None else others[max(len(others) - rule.events, 0) :])
        for record in self.records:
            if record not in kept:
                self.trimmed[record.channel] = record.position
        self.records = [record for record in self.records if record in kept]

    def gone(self, channels: Collection[str] | None, after: int) -> int:
        wanted = (lambda channel: True) if channels is None else matcher(channels)
        highest = max((position for channel, position in self.trimmed.items() if wanted(channel)), default=0)
        return highest if highest > after else 0

    def list(self) -> list[ChannelInfo]:
        found = []
        for channel in sorted({record.channel for record in self.records} | self.closed.keys()):
            held = [record for record in self.of([channel]) if not is_marker(record.event)]
            if held or channel in self.closed:
                size = sum(len(record.data.encode()) for record in held)
                ends = (held[0].position, held[-1].position) if held else (None, None)
                found.append(ChannelInfo(channel, len(held), size, *ends, channel in self.closed))
        return found


class Machine(RuleBasedStateMachine):
    """Does the same to a log and to the model. Two workers share it, where the engine can be shared."""

    def __init__(self, fresh: Callable[[ExitStack], Callable[[], Log]]) -> None:
        super().__init__()
        self.closing = ExitStack()
        self.fresh = fresh
        self.model = Model()

    @initialize()
    def begin(self) -> None:
        self.open = self.fresh(self.closing)
        self.logs = [self.open()]
        if self.logs[0].shared:
            self.logs.append(self.open())
        self.turn = 0
        self.began = self.log.bounds().began

    @property
    def log(self) -> Log:
        self.turn += 1
        return self.logs[self.turn % len(self.logs)]

    def teardown(self) -> None:
        self.closing.close()

    # ── what happens to it ──────────────────────────────────────────────────────────────────────────────

    @rule(channels=st.lists(CHANNELS, min_size=8, max_size=20))
    def publish_much(self, channels: list[str]) -> None:
        self.publish([name for name in channels if name not in self.model.closed], "x", set(), None, b"1")

    @rule(
        channels=st.lists(CHANNELS, max_size=6),
        data=DATA,
        close=st.sets(CHANNELS, max_size=1),
        key=st.none() | st.sampled_from("kl"),
        digest=st.sampled_from((b"1", b"2")),
    )
    def publish(self, channels: list[str], data: str, close: set[str], key: str | None, digest: bytes) -> None:
        model = self.model
        known = model.keys.get(key) if key is not None and (channels or close) else None
        refused = next((name for name in (*channels, *sorted(close)) if name in model.closed), None)
        events = [Event(channel, data, None if n % 3 else "kind") for n, channel in enumerate(channels)]
        try:
            positions = self.log.append(events, key=key, digest=digest, close=close)
        except IdempotencyConflict:
            assert known is not None and known[0] != digest
            return
        except ChannelClosed as error:
            assert known is None and error.channel in model.closed and refused is not None
            return
        if known is not None:
            assert known == (digest, positions)
            return
        assert refused is None or not positions
        assert positions == sorted(set(positions)) and all(position > model.latest for position in positions)
        assert len(positions) == len(channels) + len(close)
        ends = dict(zip(sorted(close), positions[len(channels) :], strict=True))
        model.records += [
            Record(position, e.channel, e.event, e.retry, e.data)
            for position, e in zip(positions[: len(events)], events, strict=True)
        ]
        model.records += [
            Record(position, name, "stream-end", None, f'{{"channel":"{name}"}}') for name, position in ends.items()
        ]
        model.closed |= ends
        model.latest = max([model.latest, *positions])
        if key is not None and positions:
            model.keys[key] = digest, positions

    @rule(channel=CHANNELS)
    def erase(self, channel: str) -> None:
        model = self.model
        erased = self.log.erase(channel)
        assert erased.events == sum(not is_marker(record.event) for record in model.of([channel]))
        assert erased.through > model.latest
        (marker,) = self.log.read([channel], erased.through - 1, 10, BYTES)
        assert (marker.position, marker.event) == (erased.through, "stream-reset")
        model.records = [record for record in model.records if record.channel != channel] + [marker]
        model.closed.pop(channel, None)
        model.latest = erased.through

    @rule(events=st.integers(1, 12), seconds=st.sampled_from((86_400.0, 86_400.0, 0.001)), rules=RULES)
    def retain(self, events: int, seconds: float, rules: list[RetainRule]) -> None:
        self.model.events, self.model.seconds, self.model.rules = events, seconds, tuple(rules)
        for log in self.logs:
            log.retain(events, seconds, rules)
        self.trim()

    @rule()
    def trim(self) -> None:
        time.sleep(0.004)  # so that all is older than the age that has passed, and than the second of the counts
        self.model.trim()

        def trimmed() -> bool:
            while sum([log.trim() for log in self.logs]):  # one of two workers does the work
                pass
            return self.log.read(None, 0, LIMIT, BYTES) == self.model.records

        # (In Redis, another worker takes over from one that ended without a bite for some time.)
        eventually(trimmed, 2, interval=0.005)

    @rule()
    def restart(self) -> None:
        if self.logs[0].shared:
            number = self.turn % len(self.logs)
            self.logs[number].close()
            self.logs[number] = self.open()
            self.logs[number].retain(self.model.events, self.model.seconds, self.model.rules)

    # ── what is asked of it ─────────────────────────────────────────────────────────────────────────────

    def cursor(self, data: st.DataObject) -> int:
        """A position that was given out, one beside it, or none."""
        known = [0, *self.model.trimmed.values(), *(record.position for record in self.model.records)]
        return max(data.draw(st.sampled_from(sorted(known))) + data.draw(st.sampled_from((-1, 0, 1))), 0)

    @rule(data=st.data(), channels=st.none() | SELECTIONS)
    def gone(self, data: st.DataObject, channels: set[str] | None) -> None:
        after = self.cursor(data)
        assert self.log.gone(channels, after) == self.model.gone(channels, after)

    @rule(data=st.data(), channels=SELECTIONS, limit=st.integers(0, 8), size=st.sampled_from((1, 60, BYTES)))
    def read(self, data: st.DataObject, channels: set[str], limit: int, size: int) -> None:
        after, following = self.cursor(data), self.model.of(channels)
        later = [record for record in following if record.position > after]
        assert self.log.read(channels, after, limit, BYTES) == later[:limit]
        page = self.log.read(channels, after, LIMIT, size)
        assert page == later[: len(page)] and bool(page) == bool(later)
        assert len(page) == len(later) or sum(len(record.data) for record in page) >= size
        assert self.log.newest(channels, limit, BYTES) == following[max(len(following) - limit, 0) :]
        floor = self.log.floor(channels, after, limit)
        assert floor == (later[-limit - 1].position if len(later) > limit else None)

    @rule(prefix=st.sampled_from(("", "a", "a:", "b", "q")), after=st.sampled_from(("", "a", "a:1", "b")))
    def channels(self, prefix: str, after: str) -> None:
        expected = [c for c in self.model.list() if c.channel.startswith(prefix) and c.channel > after]
        assert self.log.channels(prefix, after) == expected
        assert self.log.channels(prefix, after, 2) == expected[:2]

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "logs"):
            return
        model, log = self.model, self.log
        assert log.read(None, 0, LIMIT, BYTES) == model.records
        assert log.closed(NAMES) == model.closed
        assert log.channels() == model.list()
        for selector in (*NAMES, *PATTERNS):
            assert log.gone([selector], 0) == model.gone([selector], 0), selector
        bounds = log.bounds()
        assert bounds.oldest == (model.records[0].position if model.records else None)
        assert bounds.latest == (model.latest or self.began) and bounds.began == self.began
        assert bounds.trimmed == max(self.began, *model.trimmed.values(), 0) and not bounds.lost


def sqlite(path: Path) -> Callable[[ExitStack], Callable[[], Log]]:
    numbers = iter(range(10**6))

    def fresh(closing: ExitStack) -> Callable[[], Log]:
        url = f"sqlite:///{path}/{next(numbers)}.db"

        def start() -> Log:
            log = open_log(url, retain_events=10**6, retain_seconds=86_400)
            closing.callback(log.close)
            return log

        return start

    return fresh


def elsewhere(request: pytest.FixtureRequest, engine: str) -> Callable[[ExitStack], Callable[[], Log]]:
    def fresh(closing: ExitStack) -> Callable[[], Log]:
        url = "memory:" if engine == "memory" else redis_server(request).url  # which empties it

        def start() -> Log:
            log = open_log(url, retain_events=10**6, retain_seconds=86_400)
            closing.callback(log.close)
            return log

        return start

    return fresh


@pytest.mark.timeout(1800)  # a failure is made as small as it can be, which takes minutes
@pytest.mark.usefixtures("no_grace")
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
@pytest.mark.parametrize(
    ("examples", "steps"),
    [pytest.param(25, 25, id="a few"), pytest.param(300, 60, id="many", marks=pytest.mark.slow)],
)
def test_an_engine_does_what_the_model_does(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    examples: int,
    steps: int,
) -> None:
    monkeypatch.setattr("sse.log.redis.upkeep.CLAIM_MS", 20)
    fresh = sqlite(tmp_path) if engine == "sqlite" else elsewhere(request, engine)
    chosen = settings(
        max_examples=4 * examples if engine == "memory" else examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(lambda: Machine(fresh), settings=chosen)
