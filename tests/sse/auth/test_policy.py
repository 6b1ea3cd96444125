"""The table of rules, row by row."""

import itertools

import pytest

from sse.auth.policy import RULES, Publishing, Reading, decide

# The table again, written independently: SSE_AUTH, publish key, tokens, loopback.
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
def test_each_combination_of_facts_has_its_rule(facts: tuple[str, bool, bool, bool]) -> None:
    auth, key, jwt, loopback = facts
    rule = decide(auth=auth, key=key, jwt=jwt, loopback=loopback)
    assert (rule.publishing, rule.reading) == EXPECTED[facts]


def test_publishing_is_open_only_with_none_or_on_loopback_without_keys() -> None:
    for key, jwt, loopback in itertools.product([True, False], repeat=3):
        publishing = decide(auth="auto", key=key, jwt=jwt, loopback=loopback).publishing
        assert publishing is not Publishing.OPEN
        assert (publishing is Publishing.LOCAL) == (loopback and not key and not jwt)


@pytest.mark.parametrize("auth", ["", "None", "open", "any"])
def test_an_unknown_mode_is_an_error(auth: str) -> None:
    with pytest.raises(LookupError):
        decide(auth=auth, key=False, jwt=False, loopback=True)


def test_no_row_is_hidden_behind_an_earlier_one() -> None:
    reached = {
        decide(auth=auth, key=key, jwt=jwt, loopback=loopback)
        for auth in ("auto", "none")
        for key, jwt, loopback in itertools.product([True, False], repeat=3)
    }
    assert reached == set(RULES)
