"""The window against a model: a plain list of all events, and which of them are encoded."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sse.events.model import Record
from sse.events.patterns import reduced
from sse.events.wire import Frame, encode_frame
from sse.streams.window import COMPACT_AFTER, EVICTED_SHARE, FRAME_OVERHEAD_BYTES, LOOK, Item, Window, data_of, matches

CHANNELS = ("a", "b", "bb", "b:c", "_own")
PATTERNS = ("*", "b*", "b:*", "x*")
TYPES = (None, "x", "y", "message")
DATA = (".", "." * 40, "." * 900, "two\nlines\r\n", "\n" * 300, "é" * 20, "😀" + "." * 30, "")

channel_sets = st.sets(st.sampled_from((*CHANNELS, *PATTERNS, "never-used")), min_size=1, max_size=5).map(reduced)
type_sets = st.none() | st.sets(st.sampled_from(("x", "y", "message", "z")), min_size=1).map(frozenset)


def frame(position: int, channel: str = "a", event: str | None = None, size: int = 10) -> Frame:
    return Frame(position, channel, event, b"." * size)


def selects(selector: str, channel: str) -> bool:
    if selector.endswith("*"):
        return channel.startswith(selector[:-1]) and not channel.startswith("_")
    return channel == selector


class WindowAgainstAList(RuleBasedStateMachine):
    """Does every operation on the window and, the slow way, on a list."""

    @initialize(max_bytes=st.integers(300, 20_000), start=st.integers(0, 50))
    def begin(self, max_bytes: int, start: int) -> None:
        self.max_bytes = max_bytes
        self.window = Window(max_bytes)
        self.window.reset(start)
        self.came: list[Record] = []
        self.encoded = set[int]()  # positions
        self.position = self.floor = start

    def _size(self, one: Record) -> int:
        if one.position not in self.encoded:
            return one.data.__sizeof__()
        frame = encode_frame(one)
        return len(frame.wire) + (0 if frame.original is None else frame.original.__sizeof__())

    def _cost(self) -> int:
        return sum(self._size(one) + FRAME_OVERHEAD_BYTES for one in self.came)

    def _evict(self) -> None:
        if self._cost() > self.max_bytes:
            while self._cost() > self.max_bytes - self.max_bytes // EVICTED_SHARE:
                self.floor = self.came.pop(0).position

    @rule(
        events=st.lists(
            st.tuples(
                st.integers(1, 3), st.sampled_from(CHANNELS), st.sampled_from(TYPES), st.sampled_from(DATA), st.booleans()
            ),
            max_size=40,
        )
    )
    def events_come(self, events: list[tuple[int, str, str | None, str, bool]]) -> None:
        items: list[Item] = []
        for step, channel, event, data, wanted in events:
            self.position += step
            record = Record(self.position, channel, event, None, data)
            self.came.append(record)
            items.append(encode_frame(record) if wanted else record)
            if wanted:
                self.encoded.add(self.position)
        self.window.extend(items)
        self._evict()

    @rule(
        events=st.lists(st.tuples(st.sampled_from(CHANNELS), st.sampled_from(DATA)), min_size=1, max_size=40),
        wanted=st.booleans(),
    )
    def events_of_one_kind_come(self, events: list[tuple[str, str]], wanted: bool) -> None:
        self.events_come([(1, channel, None, data, wanted) for channel, data in events])

    @rule(channel=st.sampled_from(CHANNELS), at=st.floats(0, 1))
    def a_channel_is_erased(self, channel: str, at: float) -> None:
        before = self.floor + 1 + int((self.position - self.floor) * at)
        self.window.drop(channel, before)
        self.came = [one for one in self.came if one.channel != channel or one.position >= before]

    def _expected(
        self, channels: frozenset[str], types: frozenset[str] | None, after: int, through: int
    ) -> list[Record]:
        return [
            one
            for one in self.came
            if after < one.position <= through
            and any(selects(selector, one.channel) for selector in channels)
            and (types is None or (one.event or "message") in types)
        ]

    @rule(
        channels=channel_sets,
        types=type_sets,
        at=st.floats(0, 1),
        upto=st.floats(0, 1),
        max_bytes=st.sampled_from((1, 30, 500, 10**9)),
    )
    def paging_from_anywhere_gives_each_frame_once(
        self, channels: frozenset[str], types: frozenset[str] | None, at: float, upto: float, max_bytes: int
    ) -> None:
        after = self.floor + int((self.position - self.floor) * at)
        through = after + int((self.position - after) * upto)
        expected = self._expected(channels, types, after, through)
        seen: list[Frame] = []
        cursor = after
        for _ in range(len(self.came) + 2):
            page = self.window.read(channels, types, cursor, through, max_bytes)
            seen += page.frames
            assert page.frames == list(map(encode_frame, self._expected(channels, types, cursor, page.position)))
            self.encoded.update(one.position for one in page.frames)
            read = self._expected(channels, None, cursor, page.position)
            assert sum(map(self._size, read[:-1])) < max_bytes or not read, "a page over its bound"
            self._evict()  # frames may be larger than their records were
            if page.position == through:
                break
            assert cursor < page.position < through, "a page that was cut must advance, and not beyond the end"
            cursor = page.position
            if cursor < self.floor:
                return  # the rest is the log's to tell
        assert page.position == through, "the pages come to an end"
        assert seen == list(map(encode_frame, expected))

    @rule(channels=channel_sets, types=type_sets, at=st.floats(0, 1), keep=st.integers(0, 30))
    def keeping_the_newest_cuts_right_before_them(
        self, channels: frozenset[str], types: frozenset[str] | None, at: float, keep: int
    ) -> None:
        after = self.floor + int((self.position - self.floor) * at)
        following = self._expected(channels, types, after, self.position)
        if types is None and channels.isdisjoint(PATTERNS):
            cut = self.window.keep_newest(channels, after, keep)
        else:
            cut = self.window.following(channels, after).keep_newest(types, after, keep, lambda: None)
        if len(following) <= keep:
            assert cut is None
        else:
            assert cut is not None
            assert after < cut
            assert self._expected(channels, types, cut, self.position) == following[len(following) - keep :]

    @rule(channel=st.sampled_from(CHANNELS))
    def the_newest_of_a_channel_is_its_last(self, channel: str) -> None:
        of_it = [one for one in self.came if one.channel == channel]
        newest = self.window.newest(channel)
        assert (newest and (newest.position, data_of(newest))) == (of_it[-1][0], of_it[-1].data) if of_it else not newest

    @invariant()
    def what_it_says_of_itself_is_true(self) -> None:
        if hasattr(self, "window"):
            assert (self.window.floor, self.window.position) == (self.floor, self.position)
            assert len(self.window) == len(self.came)
            assert self.window.size == self._cost() <= self.max_bytes
            held = self.window._items[self.window._start :]
            assert [one.position for one in held if isinstance(one, Frame)] == [
                one.position for one in self.came if one.position in self.encoded
            ], "only what somebody asked for is encoded"


WindowAgainstAList.TestCase.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestWindowAgainstAList = WindowAgainstAList.TestCase


@pytest.mark.parametrize("at_once", [1, 40])
def test_a_long_channel_is_compacted_and_still_read_in_full(at_once: int) -> None:
    window = Window(max_bytes=300 * (10 + FRAME_OVERHEAD_BYTES))
    for first in range(1, 20 * COMPACT_AFTER, at_once):
        position = first + at_once - 1
        window.extend(frame(each) for each in range(first, first + at_once))
        if first % 97 == 1:
            held = window.read({"a"}, None, window.floor, position, 10**9).frames
            assert [one.position for one in held] == list(range(window.floor + 1, position + 1))
    (run,) = window._runs.values()
    assert len(run) <= 2 * 300 + COMPACT_AFTER
    assert len([one for one in run if one.position]) == len(window), "evicted frames must not stay in memory"


def test_a_channel_without_frames_leaves_nothing_behind() -> None:
    window = Window(max_bytes=20 * (10 + FRAME_OVERHEAD_BYTES))
    window.extend(frame(position, f"once-{position}") for position in range(1, 1000))
    assert len(window._runs) == len(window) == 19, "one less than would fit: room for the next ones"


def test_a_frame_larger_than_the_window_is_evicted_at_once() -> None:
    window = Window(max_bytes=1024)
    window.extend([frame(1), frame(2, size=5000)])
    assert (len(window), window.floor, window.position, window.size) == (0, 2, 2, 0)


def test_many_channels_are_merged_in_order() -> None:
    window = Window(max_bytes=10**9)
    channels = [f"c{n}" for n in range(64)]
    window.extend(frame(p, channels[p * 7 % 64], size=1 + p % 300) for p in range(1, 2000))
    cursor, seen = 0, []
    while cursor < window.position:
        page = window.read(channels, None, cursor, window.position, 4000)
        seen += [one.position for one in page.frames]
        cursor = page.position
    assert seen == list(range(1, 2000))


def test_a_page_of_a_thousand_busy_channels_reads_no_more_frames_than_it_returns() -> None:
    """Threat: a page of a stream with 1,024 channels took tens of milliseconds, because each channel was read."""
    window = Window(max_bytes=10**9)
    looked = Counter[str]()

    class Wire(bytes):
        def __len__(self) -> int:
            looked["length"] += 1
            return super().__len__()

    channels = [f"c{n}" for n in range(100)]
    window.extend(Frame(p, channels[p % 100], None, Wire(b"." * 100)) for p in range(1, 10_000))
    looked.clear()
    assert len(window.read(channels, None, 0, window.position, 2000).frames) == 20
    assert looked["length"] == 20


def test_a_page_of_a_pattern_looks_at_a_bounded_number_of_frames_and_advances() -> None:
    """Threat: patterns that match nothing, over a full window, would hold up the worker for tens of milliseconds."""
    window = Window(max_bytes=10**9)
    window.extend(frame(p, f"c{p}") for p in range(1, 3 * LOOK + 1))
    cursor, pages = 0, []
    while cursor < window.position:
        page = window.read({"d*"}, None, cursor, window.position, 10**9)
        assert page.frames == []
        pages.append(page.position)
        cursor = page.position
    assert pages == [LOOK, 2 * LOOK, 3 * LOOK]


def test_evicted_frames_do_not_stay_in_memory() -> None:
    window = Window(max_bytes=20 * (10 + FRAME_OVERHEAD_BYTES))
    window.extend(frame(position, f"once-{position}") for position in range(1, 1000))
    assert len([one for one in window._items if one.position]) == len(window) == 19
    assert len(window._items) <= 2 * 20 + COMPACT_AFTER


@pytest.mark.parametrize("channels", [pytest.param(1, id="one channel"), pytest.param(300, id="many channels")])
def test_a_search_for_a_type_lets_others_run(channels: int) -> None:
    window = Window(max_bytes=10**9)
    window.extend(frame(p, f"c{p % channels}", "rare" if p % 500 == 0 else None) for p in range(1, 10 * LOOK + 1))
    pauses = list[int]()
    following = window.following([f"c{n}" for n in range(channels)], 0)
    cut = following.keep_newest(frozenset({"rare"}), 0, 10, lambda: pauses.append(1))
    assert cut == 10 * LOOK - 5000
    assert 9 <= len(pauses) <= 10


@pytest.mark.parametrize(
    ("event", "types", "kept"),
    [
        pytest.param("x", None, True, id="no filter keeps all"),
        pytest.param(None, None, True, id="no filter keeps the untyped"),
        pytest.param("x", frozenset({"x", "y"}), True, id="named"),
        pytest.param("z", frozenset({"x", "y"}), False, id="not named"),
        pytest.param(None, frozenset({"x"}), False, id="untyped is not another type"),
        pytest.param(None, frozenset({"message"}), True, id="untyped is a message"),
    ],
)
def test_a_filter_keeps_the_types_that_it_names(event: str | None, types: frozenset[str] | None, kept: bool) -> None:
    assert matches(frame(1, event=event), types) is kept


@given(st.lists(st.integers(1, 5), max_size=30), st.integers(0, 100))
def test_a_page_beyond_the_end_is_complete_through_the_position_asked_for(steps: list[int], beyond: int) -> None:
    window = Window(max_bytes=10**9)
    positions = [sum(steps[: n + 1]) for n in range(len(steps))]
    window.extend(frame(position) for position in positions)
    page = window.read({"a"}, None, 0, window.position + beyond, 10**9)
    assert [one.position for one in page.frames] == positions
    assert page.position == window.position + beyond
