"""Refusals in the form of RFC 6750."""

import re

import pytest

from sse.auth import decision


@pytest.mark.parametrize(
    ("denied", "status", "challenge"),
    [
        pytest.param(
            decision.credentials_missing("why"), 401, 'Bearer realm="headwater"', id="no credentials"
        ),
        pytest.param(
            decision.invalid_request("why"),
            401,
            'Bearer realm="headwater", error="invalid_request", error_description="why"',
            id="unclear",
        ),
        pytest.param(
            decision.invalid_token("why"),
            401,
            'Bearer realm="headwater", error="invalid_token", error_description="why"',
            id="not accepted",
        ),
        pytest.param(
            decision.insufficient_scope("why", "why to orders"),
            403,
            'Bearer realm="headwater", error="insufficient_scope", error_description="why"',
            id="too little",
        ),
        pytest.param(decision.forbidden("No", "why", "closed"), 403, None, id="nothing would help"),
    ],
)
def test_a_refusal_has_its_status_and_challenge(
    denied: decision.AccessDenied, status: int, challenge: str | None
) -> None:
    assert denied.status == status
    assert denied.headers.get("WWW-Authenticate") == challenge
    assert denied.reason in decision.REASONS and denied.detail.startswith("why")


def test_each_refusal_has_headers_of_its_own() -> None:
    first, second = decision.forbidden("No", "a", "closed"), decision.forbidden("No", "b", "closed")
    first.headers["X-Request-ID"] = "1"
    assert second.headers == {}


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\r\nX-Injected: 1", "ä", "\x00"])
def test_a_description_that_could_leave_its_quotes_is_a_bug_that_shows(text: str) -> None:
    with pytest.raises(AssertionError):
        decision.challenge("invalid_token", text)


def test_a_bad_setting_names_itself() -> None:
    error = decision.BadAuthSetting("SSE_JWT_KEY", "too short")
    assert error.setting == "SSE_JWT_KEY" and re.match("SSE_JWT_KEY: too short", str(error))
