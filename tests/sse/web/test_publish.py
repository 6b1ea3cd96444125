"""Single events and idempotency keys: what is accepted, and how a refusal names the field and the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.events.digest import digest_of, scoped
from sse.events.model import Event
from sse.web.problems import Problem
from sse.web.publishing import idempotency_key, single


@pytest.mark.parametrize(
    ("event", "retry", "field"),
    [
        pytest.param("a\nb", None, "event", id="LF in the type"),
        pytest.param("a\rb", None, "event", id="CR in the type"),
        pytest.param("a\0b", None, "event", id="NUL in the type"),
        pytest.param("", None, "event", id="an empty type"),
        pytest.param("stream-reset", None, "event", id="a reserved type"),
        pytest.param(None, "", "retry", id="an empty retry"),
        pytest.param(None, "1s", "retry", id="a unit"),
        pytest.param(None, "-1", "retry", id="negative"),
        pytest.param(None, "+1", "retry", id="signed"),
        pytest.param(None, "1_0", "retry", id="with an underscore"),
        pytest.param(None, "٣", "retry", id="digits of another script"),
        pytest.param(None, "2147483648", "retry", id="beyond 31 bits"),
        pytest.param(None, "9" * 5000, "retry", id="without end"),
    ],
)
def test_a_refusal_names_the_bad_field(event: str | None, retry: str | None, field: str) -> None:
    with pytest.raises(Problem) as problem:
        single("a", b"x", event, retry)
    assert (problem.value.status, problem.value.extra["field"]) == (400, field)
    assert len(problem.value.detail) < 200


@pytest.mark.parametrize("body", [b"", b"a\0b", b"\xef\xbb\xbf bom", b"\r\n", "é€😀".encode()])
def test_the_body_is_the_data_verbatim(body: bytes) -> None:
    assert single("a", body, "e", "0") == Event("a", body.decode(), "e", 0)


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        pytest.param(b"ab\xc3", 2, id="half a character at the end"),
        pytest.param(b"\xff", 0, id="a byte that is in no character"),
        pytest.param(b"abc\xed\xa0\x80", 3, id="a surrogate"),
        pytest.param(b"\xc0\x80", 0, id="an overlong NUL"),
    ],
)
def test_a_body_that_is_not_utf_8_is_refused_with_the_offset(body: bytes, offset: int) -> None:
    with pytest.raises(Problem) as problem:
        single("a", body, None, None)
    assert (problem.value.status, problem.value.extra["offset"]) == (400, offset)


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "a\n", "\x00", "x" * 256, '"a"\t'])
def test_a_bad_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(Problem, match="Idempotency-Key"):
        idempotency_key(key)


@pytest.mark.parametrize("key", [None, "x", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
def test_a_good_idempotency_key_is_taken_unchanged(key: str | None) -> None:
    assert idempotency_key(key) == key


some_events = st.lists(
    st.builds(
        Event,
        st.sampled_from(["a", "b", "ab"]),
        st.sampled_from(["", "a", "b", "0", "\0", "\1"]),
        st.none() | st.sampled_from(["a", "b", "0"]),
        st.none() | st.sampled_from([0, 1]),
    ),
    min_size=1,
    max_size=3,
)


@given(some_events, some_events)
def test_publishes_have_the_same_digest_only_if_they_are_equal(one: list[Event], two: list[Event]) -> None:
    assert (digest_of(one) == digest_of(two)) == (one == two)


def test_digests_match_those_that_earlier_versions_stored() -> None:
    every_kind = [Event("orders", "x"), Event("orders:1", "é€😀\n\0", "created", 0), Event("a", "", None, 2000), Event("a", "", "ü")]
    assert digest_of(every_kind).hex() == "0774c7ba7cde20faa810151212e74f5f163bef0245f530b335bac2e1c4cf7e47"
    assert digest_of(every_kind[:1]).hex() == "01ad81967648bb5ce7e8c020fda17a1414c952f1fc9df9f527505b314bd03f70"


def test_a_key_belongs_to_a_set_of_channels_in_any_order() -> None:
    def key(*channels: str) -> str:
        return scoped("k", [Event(channel, "x") for channel in channels])

    assert key("a", "b") == key("b", "a") == key("b", "a", "b")
    assert len({key("a"), key("b"), key("a", "b"), key("a", "bc"), key("ab", "c"), scoped("l", [Event("a", "x")])}) == 6
