"""Channel patterns: what they match, what covers what, and what a set of them comes down to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.events.patterns import Patterns, check_pattern, is_pattern, is_reserved, matcher, reduced, split


@pytest.mark.parametrize(
    ("pattern", "channel", "covered"),
    [
        pytest.param("orders", "orders", True, id="the same name"),
        pytest.param("orders", "orders:1", False, id="a name is not a prefix"),
        pytest.param("orders:1", "orders", False, id="nor the other way round"),
        pytest.param("orders:*", "orders:1", True, id="a prefix"),
        pytest.param("orders:*", "orders:", True, id="a prefix and nothing after it"),
        pytest.param("orders:*", "orders", False, id="the colon belongs to the prefix"),
        pytest.param("orders*", "ordersX", True, id="the prefix ends anywhere"),
        pytest.param("*", "anything", True, id="the star alone"),
        pytest.param("", "orders", False, id="an empty pattern"),
        pytest.param("*orders", "my-orders", False, id="a star in front is no wildcard"),
        pytest.param("a*c", "abc", False, id="a star inside is no wildcard"),
        pytest.param("a*c*", "abcd", False, id="a star inside a prefix is no wildcard"),
        pytest.param("**", "anything", False, id="two stars: a prefix that no name has"),
        pytest.param("a.c", "abc", False, id="a dot is a dot"),
        pytest.param("[a-z]*", "abc", False, id="not a glob"),
        pytest.param("ORDERS", "orders", False, id="case counts"),
        pytest.param("orders", "orders\n", False, id="a line feed at the end"),
        pytest.param("orders ", "orders", False, id="a blank at the end"),
        pytest.param("ﬁle", "file", False, id="no Unicode normalisation"),
        pytest.param("*", "_secret", False, id="the star does not reach reserved channels"),
        pytest.param("*", "_canary", False, id="not even the canary"),
        pytest.param("_*", "_secret", True, id="an underscore and a star does"),
        pytest.param("_secret", "_secret", True, id="a reserved name"),
        pytest.param("_sec*", "_secret", True, id="a reserved prefix"),
        pytest.param("_*", "orders", False, id="and reaches nothing else"),
        pytest.param("*", "", False, id="no channel at all"),
    ],
)
def test_a_pattern_covers_a_channel(pattern: str, channel: str, covered: bool) -> None:
    assert Patterns([pattern]).covers(channel) is covered
    assert Patterns(["unrelated", pattern, "other:*"]).covers(channel) is covered


def reference(pattern: str, channel: str) -> bool:
    """The rule in its plainest form."""
    if not channel or channel.startswith("_") != pattern.startswith("_"):
        return False
    return channel.startswith(pattern[:-1]) if pattern.endswith("*") else channel == pattern


NAMES = st.text(alphabet="ab_:*.", max_size=6)


@given(st.lists(NAMES, max_size=5), NAMES)
def test_a_set_of_patterns_covers_what_one_of_them_matches(patterns: list[str], channel: str) -> None:
    assert Patterns(patterns).covers(channel) == any(reference(pattern, channel) for pattern in patterns)


@given(st.lists(st.text().filter(lambda pattern: not pattern.startswith("_"))), st.text())
def test_no_pattern_without_the_underscore_reaches_a_reserved_channel(patterns: list[str], rest: str) -> None:
    assert not Patterns(patterns).covers("_" + rest)


def test_the_first_channel_that_is_not_covered_is_named() -> None:
    patterns = Patterns(["a", "b:*"])
    assert patterns.first_missing(["a", "b:1", "c", "d"]) == "c"
    assert patterns.first_missing(["a", "b:1"]) is None
    assert patterns.first_missing([]) is None
    assert not Patterns() and patterns


@pytest.mark.parametrize("pattern", ["orders", "orders:*", "*", "_*", "_canary", "a", "a" * 128 + "*"])
def test_a_pattern_that_can_match_is_accepted(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern", ["", "**", "a**", "a*b", "*a", "a b", "a\n", "a/b", ":a", "a" * 129, "é", "_", "a,b", "../*"]
)
def test_a_pattern_that_could_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        check_pattern(pattern)


def test_only_names_that_begin_with_an_underscore_are_reserved() -> None:
    assert [is_reserved(name) for name in ("_a", "a_", "a", "")] == [True, False, False, False]


@pytest.mark.parametrize(
    ("pattern", "other", "covered"),
    [
        pytest.param("orders:*", "orders:*", True, id="the same pattern"),
        pytest.param("orders:*", "orders:eu:*", True, id="a narrower one"),
        pytest.param("orders:eu:*", "orders:*", False, id="not the other way round"),
        pytest.param("*", "orders:*", True, id="the star alone covers all"),
        pytest.param("orders:*", "*", False, id="and is covered by none but itself"),
        pytest.param("orders", "orders*", False, id="a name covers no pattern"),
        pytest.param("*", "_stats*", False, id="the star covers no reserved pattern"),
        pytest.param("_*", "_stats*", True, id="an underscore and a star does"),
        pytest.param("_*", "*", False, id="and nothing else"),
    ],
)
def test_a_pattern_covers_another(pattern: str, other: str, covered: bool) -> None:
    assert Patterns([pattern]).covers_pattern(other) is covered
    assert Patterns(["unrelated", pattern, "x:*"]).first_missing(["unrelated", other]) == (None if covered else other)


@given(NAMES, NAMES, NAMES)
def test_what_covers_a_pattern_covers_every_channel_of_it(pattern: str, other: str, channel: str) -> None:
    if Patterns([pattern]).covers_pattern(other) and Patterns([other]).covers(channel):
        assert Patterns([pattern]).covers(channel)


def selects(selector: str, channel: str) -> bool:
    """The rule for subscriptions in its plainest form."""
    if not is_pattern(selector):
        return selector == channel
    return channel.startswith(selector[:-1]) and not selector.startswith("_") and not channel.startswith("_")


CHANNELS = st.text(alphabet="ab_:", max_size=5)


@given(st.lists(NAMES, max_size=5), CHANNELS)
def test_a_selection_matches_what_one_of_its_selectors_does(selectors: list[str], channel: str) -> None:
    assert matcher(selectors)(channel) == any(selects(selector, channel) for selector in selectors)


@given(st.lists(NAMES, max_size=5), CHANNELS)
def test_a_reduced_selection_matches_the_same_and_each_channel_once(selectors: list[str], channel: str) -> None:
    few = reduced(selectors)
    assert few <= set(selectors)
    assert matcher(few)(channel) == matcher(selectors)(channel)
    assert sum(selects(selector, channel) for selector in few) <= 1
    assert reduced(few) == few


def test_a_selection_is_split_into_names_and_prefixes() -> None:
    assert split(["b:*", "a", "_stats", "*", "_*", "a"]) == ({"a", "_stats"}, ("", "b:"))
    assert reduced(["b:*", "b:1", "a", "_stats", "b:c:*", "_*"]) == {"a", "_stats", "b:*"}
    assert reduced(["*", "a", "a:*", "_stats"]) == {"*", "_stats"}
