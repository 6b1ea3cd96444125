"""The rules' table, row by row, and the channel patterns."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.auth.policy import RULES, Patterns, Publishing, Reading, check_pattern, decide, is_reserved

# Written out once more, by the words of the contract: SSE_AUTH, publish key, tokens, loopback.
EXPECTED = {
    ("auto", False, False, True): (Publishing.LOCAL, Reading.PUBLIC),
    ("auto", False, False, False): (Publishing.CLOSED, Reading.PUBLIC),
    ("auto", False, True, True): (Publishing.TOKEN, Reading.TOKEN),
    ("auto", False, True, False): (Publishing.TOKEN, Reading.TOKEN),
    ("auto", True, False, True): (Publishing.KEY, Reading.PUBLIC),
    ("auto", True, False, False): (Publishing.KEY, Reading.PUBLIC),
    ("auto", True, True, True): (Publishing.KEY_OR_TOKEN, Reading.TOKEN),
    ("auto", True, True, False): (Publishing.KEY_OR_TOKEN, Reading.TOKEN),
    ("none", False, False, True): (Publishing.OPEN, Reading.PUBLIC),
    ("none", False, False, False): (Publishing.OPEN, Reading.PUBLIC),
}


@pytest.mark.parametrize("facts", EXPECTED, ids=str)
def test_each_combination_of_facts_has_its_answer(facts: tuple[str, bool, bool, bool]) -> None:
    auth, key, jwt, loopback = facts
    rule = decide(auth=auth, key=key, jwt=jwt, loopback=loopback)
    assert (rule.publishing, rule.reading) == EXPECTED[facts]


def test_nothing_is_open_but_by_none_or_on_loopback_without_keys() -> None:
    for key, jwt, loopback in itertools.product([True, False], repeat=3):
        publishing = decide(auth="auto", key=key, jwt=jwt, loopback=loopback).publishing
        assert publishing is not Publishing.OPEN
        assert (publishing is Publishing.LOCAL) == (loopback and not key and not jwt)


@pytest.mark.parametrize("auth", ["", "None", "open", "any"])
def test_an_unknown_mode_opens_nothing(auth: str) -> None:
    with pytest.raises(LookupError):
        decide(auth=auth, key=False, jwt=False, loopback=True)


def test_no_row_is_hidden_behind_an_earlier_one() -> None:
    reached = {
        decide(auth=auth, key=key, jwt=jwt, loopback=loopback)
        for auth in ("auto", "none")
        for key, jwt, loopback in itertools.product([True, False], repeat=3)
    }
    assert reached == set(RULES)


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
