"""The index of selectors against a plain list of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sse.events.patterns import reduced
from sse.streams.index import Index

NAMES = ("a", "ab", "abc", "b", "b:1", "_own")
SELECTORS = (*NAMES, "*", "a*", "ab*", "abcd*", "b:*", "c*")

selector_sets = st.sets(st.sampled_from(SELECTORS), min_size=1, max_size=4).map(reduced)


def matches(selector: str, channel: str) -> bool:
    if selector.endswith("*"):
        return channel.startswith(selector[:-1]) and not channel.startswith("_")
    return selector == channel


@given(st.lists(st.one_of(selector_sets, st.integers(0, 20)), max_size=20))
@settings(max_examples=200, deadline=None)
def test_a_channel_finds_each_value_whose_selectors_match_it_once(steps: list[frozenset[str] | int]) -> None:
    index: Index[int] = Index()
    filed: dict[int, frozenset[str]] = {}
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if filed:
                value = list(filed)[step % len(filed)]
                index.remove(value, filed.pop(value))
        else:
            filed[number] = step
            index.add(number, step)
        for channels in ({*NAMES, "abcde", "zzz"}, {"b:1"}, {"zzz"}, set[str]()):
            assert {name: list(found) for name, found in index.among(channels).items()} == {
                name: list(found) for name in channels if (found := index.of(name))
            }
        for channel in (*NAMES, "abcde", "", "zzz"):
            expected = [value for value, given in filed.items() if any(matches(one, channel) for one in given)]
            assert sorted(index.of(channel)) == expected
            assert sorted(index.named(channel)) == [value for value, given in filed.items() if channel in given]
    for value, given_ in filed.items():
        index.remove(value, given_)
    assert not index._by_name and not index._by_prefix and not index._lengths


@pytest.mark.parametrize("patterns", [1, 10_000])
def test_a_lookup_costs_one_access_for_each_length_of_prefix(patterns: int) -> None:
    """Threat: ten thousand open patterns would slow down every publish."""
    index: Index[int] = Index()
    for number in range(patterns):
        index.add(number, {f"user:{number:05}:*"})

    class Counted(dict[str, dict[int, None]]):
        asked = 0

        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            Counted.asked += 1
            return super().get(key)

    Counted.asked = 0
    index._by_prefix = Counted(index._by_prefix)
    assert list(index.of("user:00000:read")) == [0]
    assert Counted.asked == 1
