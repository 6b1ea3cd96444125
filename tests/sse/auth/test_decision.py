"""Refusals as RFC 6750 defines them."""

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


def test_refusals_do_not_share_headers() -> None:
    first, second = decision.forbidden("No", "a", "closed"), decision.forbidden("No", "b", "closed")
    first.headers["X-Request-ID"] = "1"
    assert second.headers == {}


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\r\nX-Injected: 1", "ä", "\x00"])
def test_a_description_that_breaks_its_quotes_fails_an_assertion(text: str) -> None:
    with pytest.raises(AssertionError):
        decision.challenge("invalid_token", text)


def test_a_bad_settings_error_names_it() -> None:
    error = decision.BadAuthSetting("SSE_JWT_KEY", "too short")
    assert error.setting == "SSE_JWT_KEY" and re.match("SSE_JWT_KEY: too short", str(error))
