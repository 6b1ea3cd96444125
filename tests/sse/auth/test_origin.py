"""Origins, and who may publish without a key: foreign pages, rebound names and proxies may not."""

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.auth.address import parse_networks
from sse.auth.origin import (
    Origin,
    all_loopback,
    is_allowed,
    is_own,
    local_publish_refusal,
    parse_allow_list,
    parse_host,
    parse_origin,
)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("http://localhost", Origin("http", "localhost", None)),
        ("http://localhost:80", Origin("http", "localhost", None)),
        ("https://EXAMPLE.com:443", Origin("https", "example.com", None)),
        ("https://example.com:80", Origin("https", "example.com", 80)),
        ("HTTP://[::1]:8080", Origin("http", "::1", 8080)),
        ("http://[0:0::1]", Origin("http", "::1", None)),
        ("capacitor://localhost", Origin("capacitor", "localhost", None)),
        ("null", None),
        ("", None),
        ("localhost", None),
        ("//localhost", None),
        ("http://", None),
        ("http://localhost/", None),
        ("http://localhost/path", None),
        ("http://user@localhost", None),
        ("http://localhost:0", None),
        ("http://localhost:65536", None),
        ("http://localhost:", None),
        ("http://localhost:80 http://evil.example", None),
        ("http://localhost, http://evil.example", None),
        ("http://localhost\n", None),
        ("http://localhost\r\nX: y", None),
        ("http://[::1", None),
        ("http://[:::1]", None),
        ("http://lοcalhost", None),
    ],
    ids=repr,
)
def test_an_origin_is_scheme_host_and_port(text: str, parsed: Origin | None) -> None:
    assert parse_origin(text) == parsed


@given(st.text())
def test_any_text_is_an_origin_or_none(text: str) -> None:
    parse_origin(text)
    parse_host(text)


@given(
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True),
    st.integers(1, 65535),
)
def test_parsing_a_written_origin_gives_it_back(scheme: str, host: str, port: int) -> None:
    parsed = parse_origin(f"{scheme}://{host}:{port}")
    default = {"http": 80, "https": 443}[scheme]
    assert parsed == Origin(scheme, host, None if port == default else port)


def test_the_star_on_the_allow_list_names_no_origin() -> None:
    allowed = ("https://app.example", "http://localhost:3000/", "*")
    assert is_allowed("https://app.example", allowed)
    assert is_allowed("https://app.example:443", allowed)
    assert is_allowed("http://localhost:3000", allowed)
    for foreign in (
        "http://app.example",
        "https://app.example:8443",
        "https://sub.app.example",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "null",
        "*",
        "",
    ):
        assert not is_allowed(foreign, allowed), foreign
    assert parse_allow_list(("*",)) == frozenset()


@pytest.mark.parametrize(
    "entry", ["app.example", "https://app.example/path", "null", "https://*.example", ""]
)
def test_an_invalid_entry_of_the_allow_list_is_quoted(entry: str) -> None:
    with pytest.raises(ValueError, match="is not an origin") as refused:
        parse_allow_list((entry,))
    assert repr(entry) in str(refused.value)


PROXIES = parse_networks(("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("origin", "environ", "own"),
    [
        pytest.param("http://a.example", {"HTTP_HOST": "a.example"}, True, id="the same"),
        pytest.param("http://a.example:8080", {"HTTP_HOST": "a.example:8080"}, True, id="the same port"),
        pytest.param(
            "http://a.example", {"HTTP_HOST": "A.Example:80"}, True, id="a default port written out"
        ),
        pytest.param("http://a.example", {"HTTP_HOST": "a.example:8080"}, False, id="another port"),
        pytest.param("http://a.example:8080", {"HTTP_HOST": "a.example"}, False, id="a port too many"),
        pytest.param("http://b.example", {"HTTP_HOST": "a.example"}, False, id="another host"),
        pytest.param("http://x.a.example", {"HTTP_HOST": "a.example"}, False, id="a subdomain"),
        pytest.param("null", {"HTTP_HOST": "null"}, False, id="null is nobody's own"),
        pytest.param("file://a.example", {"HTTP_HOST": "a.example"}, False, id="no web page"),
        pytest.param("http://a.example", {}, False, id="no Host"),
        pytest.param("https://a.example", {"HTTP_HOST": "a.example"}, True, id="TLS ended before us"),
        pytest.param(
            "http://a.example",
            {"HTTP_HOST": "a.example", "wsgi.url_scheme": "https"},
            False,
            id="a page without TLS",
        ),
        pytest.param(
            "http://a.example",
            {"HTTP_HOST": "a.example", "HTTP_X_FORWARDED_PROTO": "https", "REMOTE_ADDR": "10.1.1.1"},
            False,
            id="a page without TLS, by a trusted proxy",
        ),
        pytest.param(
            "https://a.example",
            {"HTTP_HOST": "pod:8080", "HTTP_X_FORWARDED_HOST": "a.example", "REMOTE_ADDR": "10.1.1.1"},
            True,
            id="the Host that a trusted proxy was asked for",
        ),
        pytest.param(
            "https://evil.example",
            {"HTTP_HOST": "a.example", "HTTP_X_FORWARDED_HOST": "evil.example", "REMOTE_ADDR": "203.0.113.9"},
            False,
            id="a Host that somebody untrusted claims",
        ),
        pytest.param(
            "https://evil.example",
            {
                "HTTP_HOST": "a.example",
                "HTTP_X_FORWARDED_HOST": "evil.example, a.example",
                "REMOTE_ADDR": "10.1.1.1",
            },
            False,
            id="several forwarded Hosts: none is believed",
        ),
    ],
)
def test_an_origin_is_ours_if_the_request_was_sent_to_it(
    origin: str, environ: dict[str, Any], own: bool
) -> None:
    assert is_own(origin, environ, PROXIES) is own


# --- Local publishing ---------------------------------------------------------------------------------------

LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8080", "wsgi.url_scheme": "http"}


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="curl"),
        pytest.param({"HTTP_HOST": "localhost"}, id="localhost without a port"),
        pytest.param({"HTTP_HOST": "LOCALHOST:9"}, id="in capitals"),
        pytest.param({"HTTP_HOST": "[::1]:8080", "REMOTE_ADDR": "::1"}, id="IPv6"),
        pytest.param({"HTTP_HOST": "127.8.8.8:8080"}, id="another address of 127.0.0.0/8"),
        pytest.param({"REMOTE_ADDR": "::ffff:127.0.0.1"}, id="from a dual-stack socket"),
        pytest.param(
            {"HTTP_ORIGIN": "http://127.0.0.1:8080", "HTTP_SEC_FETCH_SITE": "same-origin"}, id="our page"
        ),
        pytest.param({"HTTP_SEC_FETCH_SITE": "none"}, id="typed in by the user"),
        pytest.param(
            {"HTTP_ORIGIN": "http://localhost:3000", "HTTP_SEC_FETCH_SITE": "cross-site"},
            id="an allowed page",
        ),
    ],
)
def test_a_direct_local_request_can_publish_without_a_key(environ: dict[str, str]) -> None:
    assert local_publish_refusal(LOCAL | environ, ("http://localhost:3000",)) is None


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        pytest.param({"REMOTE_ADDR": "192.168.1.7"}, "this machine", id="from the network"),
        pytest.param({"REMOTE_ADDR": ""}, "this machine", id="from a Unix socket"),
        pytest.param({"REMOTE_ADDR": None}, "this machine", id="from nobody knows where"),
        pytest.param({"HTTP_X_FORWARDED_FOR": "203.0.113.1"}, "proxy", id="X-Forwarded-For"),
        pytest.param({"HTTP_X_FORWARDED_FOR": ""}, "proxy", id="even an empty one"),
        pytest.param({"HTTP_X_FORWARDED_HOST": "localhost"}, "proxy", id="X-Forwarded-Host"),
        pytest.param({"HTTP_X_FORWARDED_PROTO": "https"}, "proxy", id="X-Forwarded-Proto"),
        pytest.param({"HTTP_X_FORWARDED_ANYTHING": "x"}, "proxy", id="X-Forwarded-Anything"),
        pytest.param({"HTTP_FORWARDED": "for=127.0.0.1"}, "proxy", id="Forwarded"),
        pytest.param({"HTTP_VIA": "1.1 proxy"}, "proxy", id="Via"),
        pytest.param({"HTTP_X_REAL_IP": "127.0.0.1"}, "proxy", id="X-Real-IP"),
        pytest.param({"HTTP_HOST": "evil.example:8080"}, "Host", id="DNS rebinding"),
        pytest.param({"HTTP_HOST": "127.0.0.1.evil.example"}, "Host", id="a name that begins like us"),
        pytest.param({"HTTP_HOST": "localhost.evil.example"}, "Host", id="another such"),
        pytest.param({"HTTP_HOST": "evil-localhost"}, "Host", id="a name that ends like us"),
        pytest.param({"HTTP_HOST": "192.168.1.7:8080"}, "Host", id="an address on the network"),
        pytest.param({"HTTP_HOST": "0.0.0.0:8080"}, "Host", id="0.0.0.0, which some systems route to us"),
        pytest.param({"HTTP_HOST": "[::]:8080"}, "Host", id="and ::"),
        pytest.param({"HTTP_HOST": "2130706433"}, "Host", id="127.0.0.1 as one number"),
        pytest.param({"HTTP_HOST": "127.1"}, "Host", id="127.0.0.1 abbreviated"),
        pytest.param({"HTTP_HOST": "user@localhost"}, "Host", id="user information"),
        pytest.param({"HTTP_HOST": "localhost:8080,evil.example"}, "Host", id="two Hosts"),
        pytest.param({"HTTP_HOST": "localhost:http"}, "Host", id="a port that is no number"),
        pytest.param({"HTTP_HOST": "localhost\n"}, "Host", id="a line feed"),
        pytest.param({"HTTP_HOST": ""}, "Host", id="an empty Host"),
        pytest.param({"HTTP_ORIGIN": "http://evil.example"}, "Origin", id="a foreign page"),
        pytest.param({"HTTP_ORIGIN": "null"}, "Origin", id="a sandboxed page"),
        pytest.param({"HTTP_ORIGIN": ""}, "Origin", id="an empty Origin"),
        pytest.param({"HTTP_ORIGIN": "http://127.0.0.1:9999"}, "Origin", id="another port of this machine"),
        pytest.param({"HTTP_ORIGIN": "http://localhost:8080"}, "Origin", id="another name of this machine"),
        pytest.param(
            {"HTTP_ORIGIN": "http://127.0.0.1:8080, http://evil.example"}, "Origin", id="two Origins"
        ),
        pytest.param({"HTTP_SEC_FETCH_SITE": "cross-site"}, "Sec-Fetch-Site", id="cross-site without Origin"),
        pytest.param(
            {"HTTP_SEC_FETCH_SITE": "same-site"}, "Sec-Fetch-Site", id="another origin of this machine"
        ),
        pytest.param({"HTTP_SEC_FETCH_SITE": "future"}, "Sec-Fetch-Site", id="a value of the future"),
        pytest.param(
            {"HTTP_ORIGIN": "http://localhost:3000", "HTTP_HOST": "evil.example"},
            "Host",
            id="allowed, but rebound",
        ),
        pytest.param(
            {"HTTP_ORIGIN": "http://localhost:3000", "HTTP_VIA": "1.1 x"},
            "proxy",
            id="allowed, but forwarded",
        ),
    ],
)
def test_no_other_request_can_publish_without_a_key(environ: dict[str, Any], reason: str) -> None:
    refusal = local_publish_refusal(LOCAL | environ, ("http://localhost:3000",))
    assert refusal is not None and reason in refusal
    assert "evil" not in refusal


def test_a_star_on_the_allow_list_lets_no_page_publish() -> None:
    assert local_publish_refusal(LOCAL | {"HTTP_ORIGIN": "http://evil.example"}, ("*",))


def test_a_request_without_a_host_cannot_publish() -> None:
    assert local_publish_refusal({"REMOTE_ADDR": "127.0.0.1"}, ())


@pytest.mark.parametrize(
    ("addresses", "loopback"),
    [
        pytest.param([("127.0.0.1", 8080)], True, id="IPv4"),
        pytest.param([("::1", 8080, 0, 0), ("127.0.0.1", 8081)], True, id="both kinds"),
        pytest.param(["127.0.0.1:8080", "[::1]:8080", "localhost:80"], True, id="as text"),
        pytest.param([("0.0.0.0", 8080)], False, id="every address"),
        pytest.param([("::", 8080, 0, 0)], False, id="every IPv6 address"),
        pytest.param([("127.0.0.1", 8080), ("10.1.2.3", 8080)], False, id="one of them on the network"),
        pytest.param(["unix:/run/headwater.sock"], False, id="a Unix socket"),
        pytest.param(["/run/headwater.sock"], False, id="a path"),
        pytest.param([b"\0abstract"], False, id="an abstract socket"),
        pytest.param([""], False, id="an empty name: every address"),
        pytest.param([":8080"], False, id="no host: every address"),
        pytest.param([("", 8080)], False, id="an empty host: every address"),
        pytest.param([None], False, id="something else"),
        pytest.param([()], False, id="an empty address"),
        pytest.param([], False, id="nothing known"),
        pytest.param(["fd://3"], False, id="an inherited descriptor"),
    ],
)
def test_only_known_loopback_addresses_count_as_loopback(addresses: list[object], loopback: bool) -> None:
    assert all_loopback(addresses) is loopback


def test_a_real_sockets_address_is_understood() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        assert all_loopback([listener.getsockname()])
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        assert not all_loopback([listener.getsockname()])
