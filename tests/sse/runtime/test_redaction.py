"""Secrets and line breaks stay out of logs, however they are written."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sse.runtime.redaction import one_line, redact, redact_url
from tests.sse.auth.fakes import claims, hs256

SECRET = "s3cr3t-Value.x/y+z"
JWT = hs256(claims(publish=["*"]))


@pytest.mark.parametrize(
    "text",
    [
        f"GET /events/a?access_token={SECRET} HTTP/1.1",
        f"GET /events/a?x=1&access_token={SECRET}&since=earliest",
        f"/events?access%5Ftoken={SECRET}",
        f"/events?access%5ftoken={SECRET}",
        f"/events?%61%63cess_%74oken={SECRET}",
        f"/events?%41CCESS_TOKEN={SECRET}",
        f"/events?ACCESS_TOKEN={SECRET}",
        f"/events?next=%2Fevents%3Faccess_token%3D{SECRET}",
        f"%2Fevents%3Faccess_token%3D{SECRET}",
        f"Referer: https://a.example/?access_token={SECRET}",
        f"Cookie: a=b; sse_token={SECRET}; c=d",
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer   {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f"Authorization: Basic {SECRET}",
        f"SSE_PUBLISH_KEY={SECRET}",
        f"SSE_JWT_KEY={SECRET}",
        f"password={SECRET} client_secret={SECRET}",
        f"redis://user:{SECRET}@redis:6379/0",
        f"redis://:{SECRET}@redis:6379/0",
        f"rediss://{SECRET}@redis:6379/0",
        f"redis+sentinel://:{SECRET}@one:26379,two:26379/primary",
        f"redis://:p@{SECRET}@redis:6379",
        f"cannot connect to 'redis://:{SECRET}@redis': refused",
        f"http://user:{SECRET.replace('/', '')}@host/path",
        f"http://proxy/?to=redis://:{SECRET}@redis",
        f"a token without a name: {JWT} here",
        f"/callback#id={JWT}",
        f"http%3A%2F%2Fa%2F%3Ft%3D{JWT}",
    ],
)
def test_a_secret_is_masked(text: str) -> None:
    shown = redact(text)
    assert "***" in shown
    for piece in (SECRET, SECRET.replace("/", ""), JWT, JWT.split(".")[1], JWT.split(".")[2]):
        assert piece not in shown
    assert "y+z" not in shown and "s3cr3t" not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "GET /events/orders?since=earliest&event=update HTTP/1.1",
        "http://host/path?email=a@b.example",
        "https://host:8080/@user/page",
        "redis://redis:6379/0",
        "sqlite:////var/lib/headwater.db",
        "user@host said hello",
        "Last-Event-ID: 1732345678901-0",
        "eyJ is how tokens begin",
        "",
    ],
)
def test_text_without_a_secret_is_unchanged(text: str) -> None:
    assert redact(text) == text


def test_the_rest_of_a_line_stays_readable() -> None:
    assert redact("GET /e?a=1&access_token=x&b=2 from redis://:p@host/0") == (
        "GET /e?a=1&access_token=***&b=2 from redis://***@host/0"
    )


TOKENS = st.from_regex(r"[A-Za-z0-9._~+/-]{8,40}={0,2}", fullmatch=True)


@given(TOKENS, st.text(max_size=20), st.text(max_size=20))
def test_no_access_token_survives_in_any_surroundings(token: str, before: str, after: str) -> None:
    shown = redact(f"{before}?access_token={token}&{after}")
    assert f"access_token={token}" not in shown and f"={token}&" not in shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("redis://:pw@h:1/0", "redis://***@h:1/0", id="password"),
        pytest.param("redis://u:p@w@h:1/0", "redis://***@h:1/0", id="password-with-an-at"),
        pytest.param("redsi:pw@h", "***@h", id="no-url"),
        pytest.param("redis://h/0?password=pw&x=1", "redis://h/0?password=***&x=1", id="in-the-query"),
        pytest.param("redsi:p//w@h", "***@h", id="slashes-in-the-password-of-no-url"),
        pytest.param("redis://h:1/0", "redis://h:1/0", id="nothing-to-hide"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert redact_url(url) == expected


@settings(max_examples=150)
@given(st.text(alphabet="abehrst:/@?#&=. %", max_size=60))
def test_redaction_is_idempotent_and_never_fails(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(TOKENS, st.text(alphabet="ab:/@?#&=.", max_size=12), st.text(alphabet="ab:/?#&=.", max_size=12))
def test_no_password_of_a_log_address_survives(password: str, before: str, after: str) -> None:
    assert password not in redact(f"redis://{before}:{password}@{after}").replace(after, "")


@pytest.mark.parametrize(
    "piece",
    ["eyJ", "eyJ-", "eyJa.", "a://", "http://", "@", "bearer ", "token", "%74oken", " ", "redis://a@b "],
)
def test_a_long_hostile_line_is_redacted_quickly(piece: str) -> None:
    text = "x://@" + piece * (50_000 // len(piece))
    started = time.perf_counter()
    redact(text)
    assert time.perf_counter() - started < 0.5, "linear: some ms"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain text with ümläuts and 漢字", "plain text with ümläuts and 漢字"),
        ("forged\n2026-01-01 INFO all is well", r"forged\n2026-01-01 INFO all is well"),
        ("a\r\nb", r"a\r\nb"),
        ("a\x00b\x1b[2Jc\x7f", r"a\x00b\x1b[2Jc\x7f"),
        ("a\x85b\u2028c\u2029d", r"a\x85b\u2028c\u2029d"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("a\ud800b", r"a\ud800b"),
    ],
    ids=repr,
)
def test_a_line_stays_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text())
def test_one_line_is_one_printable_line_of_bounded_length(text: str) -> None:
    line = one_line(text, limit=50)
    assert len(line.splitlines()) <= 1 and len(line) <= 50 * 6 + 1
    line.encode()
