"""Cross-origin reading, by the Fetch standard's CORS protocol."""

import pytest

from sse.auth.cors import cors_headers

from .fakes import FakeSettings

PAGE = "https://app.example"


def headers(allowed: tuple[str, ...], origin: str | None, *, preflight: bool = False) -> dict[str, str]:
    return cors_headers(FakeSettings(sse_cors_origins=allowed), origin, preflight=preflight)


def test_without_a_list_there_is_no_cors() -> None:
    assert headers((), PAGE) == {} == headers((), PAGE, preflight=True)


def test_a_page_on_the_list_may_read_with_credentials() -> None:
    assert headers((PAGE,), PAGE) == {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": PAGE,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After, WWW-Authenticate, X-Request-ID",
    }


def test_a_page_on_the_list_may_send_the_headers_that_our_routes_accept() -> None:
    answer = headers((PAGE,), PAGE, preflight=True)
    assert answer["Access-Control-Allow-Methods"] == "GET, HEAD, POST, DELETE"
    named = answer["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "idempotency-key", "last-event-id"} <= set(named)
    assert {"traceparent", "tracestate", "x-request-id"} <= set(named)
    assert "*" not in "".join(answer.values())
    assert int(answer["Access-Control-Max-Age"]) > 0
    assert answer["Vary"].split(", ")[0] == "Origin"


@pytest.mark.parametrize("preflight", [False, True])
@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "http://app.example",
        "https://app.example.evil",
        "https://evil.example",
        PAGE + "\r\nX: y",
    ],
)
def test_other_origins_get_only_vary(origin: str | None, preflight: bool) -> None:
    assert list(headers((PAGE,), origin, preflight=preflight)) == ["Vary"]
    assert headers((PAGE,), origin)["Vary"] == "Origin", (
        "otherwise a cache could serve one page's response to another"
    )


@pytest.mark.parametrize("preflight", [False, True])
def test_the_star_never_allows_credentials_and_is_never_an_echo(preflight: bool) -> None:
    answer = headers(("*",), "https://evil.example", preflight=preflight)
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer


def test_a_page_on_the_list_may_send_credentials_despite_the_star() -> None:
    assert headers(("*", PAGE), PAGE)["Access-Control-Allow-Credentials"] == "true"
    assert headers(("*", PAGE), "https://b.example")["Access-Control-Allow-Origin"] == "*"
