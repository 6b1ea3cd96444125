"""The contract of retention by rules, for every engine: what each keeps, and that ``gone`` tells the truth of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from string import ascii_letters

import pytest

from sse.events.model import SEQUENCE_BITS, Event
from sse.log import Log, RetainRule
from tests.sse.log.conftest import Place, data, fill, trim_all
from tests.support.wait import eventually

LIMIT, BYTES = 1000, 1 << 30


def put(log: Log, channels: Iterable[str]) -> list[int]:
    """One event in each of these channels, its data being a letter: a, b, c, … in order."""
    return log.append([Event(channel, letter) for channel, letter in zip(channels, ascii_letters, strict=False)])


def kept(log: Log, *channels: str) -> str:
    """The data of what is left, without markers."""
    return "".join(r.data for r in log.read(channels or None, 0, LIMIT, BYTES) if r.event != "stream-end")


def trims_to(log: Log, expected: str) -> None:
    """Trim until this is left, and see that it stays so."""
    eventually(lambda: (trim_all(log), kept(log))[1] == expected, message=lambda: kept(log))
    assert log.trim() == 0


# ── gone ────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_gone_of_a_log_that_trimmed_nothing(log: Log) -> None:
    positions = fill(log, "abc")
    for channels in (None, ["a"], ["a", "b*"], ["*"], ["nobody"], []):
        assert log.gone(channels, 0) == log.gone(channels, positions[1]) == 0


def test_gone_tells_the_last_event_trimmed_of_these_channels(place: Place) -> None:
    log = place.open(retain_events=3)
    p = fill(log, ["a", "b", "a:1", "a", "c", "b", "a", "c"])
    assert trim_all(log) == 5
    for channels, highest in (
        (["a"], p[3]),
        (["b"], p[1]),
        (["c"], p[4]),
        (["a:1"], p[2]),
        (["a", "b"], p[3]),
        (["a:*"], p[2]),
        (["b", "a:*"], p[2]),
        (["*"], p[4]),
        (["nobody"], 0),
        (["nobody", "q*"], 0),
        ([], 0),
        (None, p[4]),
    ):
        for after in (0, *p):
            assert log.gone(channels, after) == (highest if highest > after else 0), (channels, after)


def test_what_was_erased_is_not_gone_but_what_was_trimmed_before_is(place: Place) -> None:
    log = place.open(retain_events=2)
    positions = fill(log, "aabb")
    trim_all(log)
    log.erase("a")
    assert log.gone(["a"], 0) == positions[1]
    log.erase("b")
    assert log.gone(["b"], 0) == 0


def test_a_marker_that_was_trimmed_is_gone(place: Place) -> None:
    log = place.open(retain_events=1)
    fill(log, "a")
    through = log.erase("a").through
    fill(log, "b")
    trim_all(log)
    assert log.gone(["a"], 0) == through


def test_gone_is_known_to_other_workers_and_after_a_restart(shared_place: Place) -> None:
    log, other = shared_place.open(retain_events=1), shared_place.open(retain_events=1)
    positions = fill(log, "abab")
    trim_all(log)
    expected = {"a": positions[2], "b": positions[1], "*": positions[2], "nobody": 0}
    assert {channel: other.gone([channel], 0) for channel in expected} == expected
    log.close()
    other.close()
    again = shared_place.open()
    assert {channel: again.gone([channel], 0) for channel in expected} == expected


# ── rules ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("no_grace")
def test_a_rules_count_is_for_each_channel(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("c:*", 2, None)])
    put(log, ["c:1", "c:2", "x", "c:1", "c:1", "x", "c:2", "c:1", "x", "c:2"])
    trims_to(log, "cefghij")
    put(log, ["c:3", "c:1"])
    trims_to(log, "cfghijab")


@pytest.mark.usefixtures("no_grace")
def test_the_first_rule_that_matches_decides(log: Log) -> None:
    rules = [RetainRule("a:keep", 3, None), RetainRule("a:*", 1, None), RetainRule("*", 2, None)]
    log.retain(1, 86_400, rules)
    put(log, ["a:keep", "a:1", "b"] * 5)
    trims_to(log, "gjlmno")
    log.retain(1, 86_400, rules[::-1])
    trims_to(log, "jlmno")


@pytest.mark.usefixtures("no_grace")
def test_a_rule_of_a_name_is_for_that_channel_only(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("a", 1, None)])
    put(log, ["a", "ab", "a:1", "a"])
    trims_to(log, "bcd")


def test_a_rules_age_is_for_its_channels_only(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("cursor:*", None, 0.05), RetainRule("audit:*", None, 86_400)])
    put(log, ["audit:1", "cursor:1", "x", "cursor:2", "audit:2", "cursor:1"])
    trims_to(log, "ace")
    log.retain(100, 0.05, [RetainRule("audit:*", None, 86_400)])
    trims_to(log, "ae")
    assert log.bounds().oldest is not None
    log.retain(100, 0.05)
    trims_to(log, "")


@pytest.mark.usefixtures("no_grace")
def test_a_rule_may_have_a_count_and_an_age(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("a", 2, 86_400), RetainRule("b", 3, 0.05)])
    put(log, "aaabbbb")
    trims_to(log, "bc")


@pytest.mark.usefixtures("no_grace")
def test_the_count_of_the_rest_is_over_all_of_them_and_takes_nothing_from_a_rule(log: Log) -> None:
    log.retain(3, 86_400, [RetainRule("audit:*", None, None), RetainRule("loud", 2, None)])
    put(log, ["audit:1", "x", "loud", "y", "x", "loud", "loud", "y", "audit:2", "loud"])
    trims_to(log, "adeghij")
    put(log, ["loud"] * 5 + ["audit:1"])
    trims_to(log, "adehidef")
    put(log, ["z", "z"])
    trims_to(log, "ahidefab")


def test_another_rule_counts_from_the_next_trim_on(log: Log) -> None:
    log.retain(2, 86_400, [RetainRule("a*", None, 86_400)])
    put(log, ["a:1", "b", "a:2", "b", "b"])
    trims_to(log, "acde")
    log.retain(2, 86_400, [RetainRule("b*", None, 86_400)])
    put(log, ["b", "a:1"])
    trims_to(log, "cdeab")
    log.retain(2, 86_400)
    trims_to(log, "ab")


@pytest.mark.usefixtures("no_grace")
def test_a_closed_channel_keeps_its_end_beside_what_a_rule_keeps(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("a", 2, None), RetainRule("b", 1, None)])
    put(log, "aaab")
    ends = log.append([], close=["a", "b"])
    trims_to(log, "bcd")
    assert [r.position for r in log.read(None, 0, LIMIT, BYTES) if r.event == "stream-end"] == ends


def test_a_count_trims_nothing_that_was_stored_just_now(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("a", 1, None)])
    put(log, "aaa")
    stored = time.time()
    while kept(log) == "abc":
        trim_all(log)
        assert time.time() - stored < 10
        time.sleep(0.05)
    assert 1.5 < time.time() - stored < 6
    assert kept(log) == "c"


@pytest.mark.usefixtures("no_grace")
def test_a_rule_trims_in_bites_and_says_how_much(log: Log) -> None:
    log.retain(700, 86_400, [RetainRule("a*", 2, None)])
    log.append([Event(f"a{n % 400}", "x") for n in range(2000)])
    log.append([Event(f"b{n % 400}", "x") for n in range(900)])
    removed: list[int] = []
    while bite := log.trim():
        assert bite <= 500
        removed.append(bite)
    assert sum(removed) == 1200 + 200
    infos = log.channels("a") + log.channels("b")
    assert sum(info.events for info in infos) == 800 + 700
    assert {info.events for info in infos if info.channel.startswith("a")} == {2}


@pytest.mark.usefixtures("no_grace")
def test_a_quiet_channel_has_lost_nothing_by_a_loud_one(log: Log) -> None:
    log.retain(100, 86_400, [RetainRule("loud", 5, None)])
    (quiet,) = fill(log, ["quiet"])
    loud = fill(log, ["loud"] * 50)
    eventually(lambda: (trim_all(log), log.gone(["loud"], 0))[1] == loud[-6])
    assert log.gone(["quiet"], 0) == log.gone(["q*"], quiet) == 0
    assert log.gone(["*"], 0) == log.bounds().trimmed == loud[-6]
    assert log.bounds().oldest == quiet


def test_positions_go_on_above_what_a_rule_trimmed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest events of a log may be the first to go; their positions are not given out again."""
    log.retain(100, 86_400, [RetainRule("brief", None, 0.05)])
    fill(log, ["lasting"])
    (brief,) = fill(log, ["brief"])
    eventually(lambda: log.trim() == 1)
    assert log.bounds().latest == brief
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    (next_one,) = fill(log, ["lasting"])
    monkeypatch.undo()
    assert next_one > brief and next_one >> SEQUENCE_BITS >= brief >> SEQUENCE_BITS


def test_rules_are_found_by_a_worker_that_starts(shared_place: Place) -> None:
    log = shared_place.open()
    put(log, ["brief", "x", "brief", "x"])
    log.close()
    again = shared_place.open()
    again.retain(100, 86_400, [RetainRule("brief", None, 0.05)])
    trims_to(again, "bd")
    assert data(again.read(["brief"], 0, LIMIT, BYTES)) == []
