"""How retention rules are written, and how an error names the rule and what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.log.base import RetainRule
from sse.log.retain import MAX_RULES, parse_rules
from sse.settings import Settings, SettingsError

DAY = 86_400


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("audit:*=30d", RetainRule("audit:*", None, 30 * DAY)),
        ("cursor:*=60s", RetainRule("cursor:*", None, 60)),
        ("orders=100000/7d", RetainRule("orders", 100_000, 7 * DAY)),
        ("orders=1", RetainRule("orders", 1, None)),
        ("*=1.5h", RetainRule("*", None, 5400)),
        (" orders = 5/90m ", RetainRule("orders", 5, 5400)),
    ],
)
def test_a_rule_has_a_count_a_duration_or_both(text: str, rule: RetainRule) -> None:
    assert parse_rules([text]) == [rule]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("orders", "it has no ="),
        ("orders=", "a count, a duration"),
        ("orders=7", None),
        ("orders=7w", "a count, a duration"),
        ("orders=d", "a count, a duration"),
        ("orders=7d/100", "a count, a duration"),
        ("orders=5/", "a count, a duration"),
        ("orders=5/5", "a count, a duration"),
        ("orders=/5d", "a count, a duration"),
        ("orders=-5", "a count, a duration"),
        ("orders=1e3", "a count, a duration"),
        ("orders=٣", "a count, a duration"),
        ("orders=5 d", "a count, a duration"),
        ("orders=0", "a count is from 1"),
        ("orders=9999999999", "a count is from 1"),
        ("orders=0s", "a duration is from 1s"),
        ("orders=0.5s", "a duration is from 1s"),
        ("orders=9999d", "a duration is from 1s"),
        ("orders:*:x=5", "a pattern is"),
        ("=5", "a pattern is"),
        ("_control=5", "the service's own"),
        ("_*=5", "the service's own"),
        ("two words=5", "a pattern is"),
    ],
)
def test_an_error_names_the_rule_and_what_is_allowed(text: str, says: str | None) -> None:
    if says is None:
        parse_rules([text])
        return
    with pytest.raises(ValueError, match="^rule ") as refused:
        parse_rules(["audit=1d", text])
    assert ascii(text) in str(refused.value) and says in str(refused.value)


@pytest.mark.parametrize(
    ("rules", "reached"),
    [
        (["orders:*=5", "orders:eu:*=9"], False),
        (["orders:*=5", "orders:1=9"], False),
        (["*=5", "orders=9"], False),
        (["orders=5", "orders=9"], False),
        (["orders:eu:*=5", "orders:*=9"], True),
        (["orders:1=5", "orders:*=9", "*=1d"], True),
        (["orders=5", "orders*=9"], True),
    ],
    ids=str,
)
def test_a_rule_that_decides_nothing_is_a_mistake(rules: list[str], reached: bool) -> None:
    if reached:
        assert len(parse_rules(rules)) == len(rules)
        return
    with pytest.raises(ValueError, match="before it matches all of its channels"):
        parse_rules(rules)


def test_there_are_so_many_rules_at_most() -> None:
    assert len(parse_rules(f"c{n}=5" for n in range(MAX_RULES))) == MAX_RULES
    with pytest.raises(ValueError, match="at most 256"):
        parse_rules(f"c{n}=5" for n in range(MAX_RULES + 1))


@given(st.text(max_size=20) | st.from_regex(r"[a-c:*]{1,3}=[0-9]{0,3}[smhd/]{0,2}[0-9]{0,2}[smhd]?", fullmatch=True))
def test_any_text_is_a_rule_or_an_error_in_one_printable_line(text: str) -> None:
    try:
        (rule,) = parse_rules([text])
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert rule.events is not None or rule.seconds is not None


def test_the_setting_is_a_list_and_its_error_has_one_line() -> None:
    for value in ("audit:*=30d, orders=5", ["audit:*=30d", "orders=5"]):
        assert Settings.from_mapping({"SSE_RETAIN": value}).sse_retain == ("audit:*=30d", "orders=5")
    assert Settings.from_mapping({}).sse_retain == ()
    with pytest.raises(SettingsError) as refused:
        Settings.from_mapping({"SSE_RETAIN": "audit:*=30d,orders=5w"})
    (line,) = refused.value.lines
    assert "SSE_RETAIN='audit:*=30d,orders=5w' cannot be used (rule 'orders=5w': after =" in line
    assert "it must be a list of rules pattern=count, pattern=duration or pattern=count/duration" in line
