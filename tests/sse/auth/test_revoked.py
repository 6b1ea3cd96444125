"""Tokens of a revoked subject are refused for a day, unless they were issued afterwards."""

import time
from typing import Any

import pytest
from pydantic import SecretStr

from sse.auth.authenticator import Authenticator
from sse.auth.decision import AccessDenied
from sse.auth.revoked import REVOKED_SECONDS, Revoked, subject_name

from .fakes import SECRET, FakeSettings, bearer, claims, hs256, request

TOKEN = FakeSettings(sse_jwt_key=SecretStr(SECRET))
NOW = int(time.time())


def reads(revoked: Revoked, **more: Any) -> bool:
    """Tell whether a token with these claims may read."""
    checker = Authenticator(TOKEN, loopback_only=lambda: False, revoked=revoked)
    asked = request("GET", **bearer(hs256(claims(subscribe=["*"], publish=["*"], **more))))
    try:
        checker.may_subscribe(asked, ["a"])
    except AccessDenied as refused:
        assert refused.status == 401 and "revoked" in refused.detail
        with pytest.raises(AccessDenied, match="401"):
            checker.may_publish(asked, ["a"])
        return False
    checker.may_publish(asked, ["a"])
    return True


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({"sub": "alice", "iat": NOW - 60}, False, id="issued before"),
        pytest.param({"sub": "alice"}, False, id="nobody knows when it was issued"),
        pytest.param({"sub": "alice", "iat": NOW - 10}, False, id="issued in the same second"),
        pytest.param({"sub": "alice", "iat": NOW - 9}, True, id="issued afterwards"),
        pytest.param({"sub": "alice", "iat": NOW - 9.4}, True, id="issued in the same second, with a fraction"),
        pytest.param({"sub": "Alice", "iat": NOW - 60}, True, id="somebody else's"),
        pytest.param({"iat": NOW - 60}, True, id="nobody's"),
    ],
)
def test_earlier_tokens_of_a_revoked_subject_are_refused(more: dict[str, Any], expected: bool) -> None:
    revoked = Revoked(dict)
    revoked.add("alice", (NOW - 10) * 1000 + 500)
    assert reads(revoked, **more) is expected


def test_a_token_that_was_accepted_before_is_refused_at_once() -> None:
    revoked = Revoked(dict)
    assert reads(revoked, sub="alice", iat=NOW - 60)
    revoked.add("alice", NOW * 1000)
    assert not reads(revoked, sub="alice", iat=NOW - 60)


def test_a_revocation_lasts_a_day() -> None:
    now = [float(NOW)]
    revoked = Revoked(dict, clock=lambda: now[0])
    revoked.add("alice", NOW * 1000)
    now[0] += REVOKED_SECONDS - 1
    assert revoked.refuses("alice", NOW - 60)
    now[0] += 1
    assert not revoked.refuses("alice", NOW - 60)
    revoked.add("bob", int(now[0] * 1000))
    assert len(revoked) == 1, "those that are over are forgotten"


def test_the_later_of_two_revocations_counts() -> None:
    revoked = Revoked(dict)
    revoked.add("alice", NOW * 1000)
    revoked.take({"alice": str(NOW * 1000 - 5000)})
    assert revoked.refuses("alice", NOW - 1)


def test_the_notes_are_read_before_the_first_token_is_accepted() -> None:
    notes: dict[str, str] | None = None

    def read() -> dict[str, str]:
        if notes is None:
            raise ConnectionError("the log is away")
        return notes

    revoked = Revoked(read)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            reads(revoked, sub="alice", iat=NOW - 60)
    assert reads(revoked, iat=NOW - 60), "a token without a subject cannot be revoked"
    notes = {"alice": str(NOW * 1000), "bob": "soon"}
    assert not reads(revoked, sub="alice", iat=NOW - 60)
    assert reads(revoked, sub="bob", iat=NOW - 60)


@pytest.mark.parametrize("sub", ["x" * 5000, "two\nlines", "\ud800", "tab\t"], ids=["long", "lines", "surrogate", "tab"])
def test_an_unwieldy_subject_is_known_by_its_digest(sub: str) -> None:
    name = subject_name(sub)
    assert len(name) < 80 and name.isascii() and name.isprintable() and name != subject_name(sub + "x")
    revoked = Revoked(dict)
    revoked.add(name, NOW * 1000)
    assert revoked.refuses(sub, None)


def test_a_grant_names_whose_token_it_is() -> None:
    checker = Authenticator(TOKEN, loopback_only=lambda: False, revoked=Revoked(dict))
    for sub, owner in (("alice", "alice"), (None, ""), ("a\nb", subject_name("a\nb"))):
        asked = request("GET", **bearer(hs256(claims(subscribe=["*"], sub=sub))))
        assert checker.may_subscribe(asked, ["a"]).owner == owner
