"""Finding a request's credential, and refusing ambiguous ones."""

from typing import Any

import pytest
from flask import Request

from sse.auth.bearer import MAX_CREDENTIAL_CHARS, SCHEMES, Credential, Scheme, find_credential
from sse.auth.decision import AccessDenied

from .fakes import request

FOUND = [
    pytest.param("/", {}, None, id="nothing"),
    pytest.param("/", {"Authorization": "Bearer abc"}, ("abc", "bearer"), id="bearer"),
    pytest.param("/", {"Authorization": "bEARER abc"}, ("abc", "bearer"), id="the scheme in any case"),
    pytest.param("/", {"Authorization": "Bearer   abc "}, ("abc", "bearer"), id="blanks around"),
    pytest.param("/", {"Authorization": "Basic dXNlcjpwYXNz"}, None, id="another scheme is not for us"),
    pytest.param("/", {"Authorization": "Bearerabc"}, None, id="another scheme that begins alike"),
    pytest.param("/", {"Authorization": ""}, None, id="an empty header"),
    pytest.param("/?access_token=abc", {}, ("abc", "query"), id="query"),
    pytest.param("/?access%5Ftoken=abc", {}, ("abc", "query"), id="query with an encoded name"),
    pytest.param("/?Access_Token=abc", {}, None, id="query names have their case"),
    pytest.param("/", {"Cookie": "a=b; sse_token=abc; c=d"}, ("abc", "cookie"), id="cookie"),
    pytest.param("/", {"Cookie": "sse_tokens=abc"}, None, id="another cookie"),
    pytest.param(
        "/?access_token=abc",
        {"Authorization": "Bearer abc", "Cookie": "sse_token=abc"},
        ("abc", "bearer"),
        id="the same in three ways: the header counts",
    ),
    pytest.param(
        "/?access_token=abc", {"Cookie": "sse_token=abc"}, ("abc", "query"), id="query before cookie"
    ),
    pytest.param(
        "/?access_token=abc",
        {"Authorization": "Basic dXNlcjpwYXNz"},
        ("abc", "query"),
        id="a proxy's Basic beside our query",
    ),
]


def found(asked: Request, *, reading: bool) -> tuple[str, str] | None:
    credential = find_credential(asked, reading=reading)
    return credential and (credential.value, credential.scheme.name)


@pytest.mark.parametrize(("path", "headers", "expected"), FOUND)
def test_a_credential_is_found(path: str, headers: dict[str, str], expected: Any) -> None:
    assert found(request("GET", path, **headers), reading=True) == expected


def test_every_scheme_has_a_request_in_the_table() -> None:
    assert {param.values[2][1] for param in FOUND if param.values[2]} == {scheme.name for scheme in SCHEMES}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        pytest.param("/?access_token=abc", {"Authorization": "Bearer xyz"}, id="header and query differ"),
        pytest.param(
            "/", {"Authorization": "Bearer abc", "Cookie": "sse_token=xyz"}, id="header and cookie differ"
        ),
        pytest.param("/?access_token=abc", {"Cookie": "sse_token=xyz"}, id="query and cookie differ"),
        pytest.param("/?access_token=abc&access_token=xyz", {}, id="two in the query"),
        pytest.param("/", {"Cookie": "sse_token=abc; sse_token=xyz"}, id="two cookies"),
        pytest.param("/", {"Authorization": "Bearer abc,Bearer xyz"}, id="two headers, joined"),
        pytest.param("/", {"Authorization": "Bearer abc xyz"}, id="two words"),
        pytest.param("/", {"Authorization": "Bearer"}, id="a scheme without anything"),
        pytest.param("/?access_token=", {}, id="an empty parameter"),
        pytest.param("/?access_token=abc&access_token=", {}, id="an empty one beside a good one"),
        pytest.param("/?access_token=a%0D%0Ab", {}, id="line breaks"),
        pytest.param("/?access_token=%C3%A4", {}, id="not ASCII"),
        pytest.param("/?access_token=%00", {}, id="NUL"),
        pytest.param("/?access_token=%ED%A0%80", {}, id="a lone surrogate"),
        pytest.param("/", {"Authorization": "Bearer a=b"}, id="an equals sign inside"),
        pytest.param("/", {"Authorization": "Bearer " + "a" * (MAX_CREDENTIAL_CHARS + 1)}, id="too long"),
    ],
)
def test_malformed_or_ambiguous_credentials_are_an_invalid_request(path: str, headers: dict[str, str]) -> None:
    with pytest.raises(AccessDenied) as denied:
        find_credential(request("GET", path, **headers), reading=True)
    assert denied.value.status == 401
    assert 'error="invalid_request"' in denied.value.headers["WWW-Authenticate"]
    assert "abc" not in denied.value.detail and "xyz" not in denied.value.detail


@pytest.mark.parametrize("query", ["access_token=abc", "access%5Ftoken=abc", "access_token=", "access_token=a&access_token=b"])
def test_the_query_counts_for_reading_only(query: str) -> None:
    assert find_credential(request("POST", f"/?{query}"), reading=False) is None
    by_header = request("POST", f"/?{query}", Authorization="Bearer xyz")
    assert found(by_header, reading=False) == ("xyz", "bearer")
    assert found(request("POST", f"/?{query}", Cookie="sse_token=xyz"), reading=False) == ("xyz", "cookie")


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_a_credentials_repr_hides_it(scheme: Scheme) -> None:
    assert "abc" not in repr(Credential("abc", scheme)) and "abc" not in f"{Credential('abc', scheme)}"
