"""What an app's own function may answer, and what becomes of it."""

import math
import time
from typing import Any

import pytest

from sse.auth.decision import AccessDenied
from sse.auth.hook import MIN_SECONDS, Grant, ask
from sse.auth.revoked import subject_name


def asked(answer: Any) -> Any:
    return ask(lambda request, action, channels: answer, None, "subscribe", ("a",), "address:192.0.2.1")


def test_none_leaves_the_decision_to_keys_and_tokens() -> None:
    assert asked(None) is None


def test_true_allows_without_a_name_or_an_end() -> None:
    assert asked(True) == ("address:192.0.2.1", None, "", False)
    assert asked(Grant()) == ("address:192.0.2.1", None, "", False)


def test_false_refuses() -> None:
    with pytest.raises(AccessDenied) as refused:
        asked(False)
    assert refused.value.status == 403 and refused.value.reason == "app" and not refused.value.headers


@pytest.mark.parametrize("answer", [0, 1, "", "yes", [], {}, Grant, ("alice", 5)], ids=repr)
def test_anything_else_is_an_error_even_if_it_looks_true(answer: Any) -> None:
    with pytest.raises(TypeError, match=r"returns True, False, None or sse\.Grant"):
        asked(answer)


def test_a_grant_names_the_subject() -> None:
    assert asked(Grant("alice")) == ("app:alice", None, "alice", False)
    forged = asked(Grant("x\nforged line" + "y" * 500))
    assert "\n" not in forged.subject and len(forged.subject) < 200
    assert forged.owner == subject_name("x\nforged line" + "y" * 500)


def test_a_grant_ends_in_time_but_not_before_the_stream_has_begun() -> None:
    before = time.time()
    assert before + 60 <= asked(Grant(expires_in=60)).expires_at <= time.time() + 60
    assert before + MIN_SECONDS <= asked(Grant(expires_in=0.01)).expires_at <= time.time() + MIN_SECONDS


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": ""},
        {"subject": 7},
        {"subject": b"alice"},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": math.nan},
        {"expires_in": math.inf},
        {"expires_in": True},
        {"expires_in": "60"},
    ],
    ids=str,
)
def test_a_grant_that_makes_no_sense_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        Grant(**wrong)
