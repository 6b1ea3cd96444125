"""The client's address: only trusted proxies can name it."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.auth.address import MAX_HOPS, address_bucket, client_address, parse_address, parse_networks

PROXIES = parse_networks(("10.0.0.0/8", "fd00::/8", "192.0.2.7"))


def seen(peer: str | None, xff: str | None = None, forwarded: str | None = None) -> str:
    environ: dict[str, Any] = {"REMOTE_ADDR": peer}
    if xff is not None:
        environ["HTTP_X_FORWARDED_FOR"] = xff
    if forwarded is not None:
        environ["HTTP_FORWARDED"] = forwarded
    return client_address(environ, PROXIES)


@pytest.mark.parametrize(
    ("peer", "xff", "forwarded", "client"),
    [
        pytest.param("203.0.113.5", None, None, "203.0.113.5", id="no proxy"),
        pytest.param("203.0.113.5", "1.1.1.1", None, "203.0.113.5", id="a list from somebody untrusted"),
        pytest.param(
            "203.0.113.5", None, "for=1.1.1.1", "203.0.113.5", id="Forwarded from somebody untrusted"
        ),
        pytest.param("10.0.0.1", None, None, "10.0.0.1", id="a proxy's own request"),
        pytest.param("10.0.0.1", "1.1.1.1", None, "1.1.1.1", id="one proxy"),
        pytest.param("192.0.2.7", "1.1.1.1", None, "1.1.1.1", id="a proxy given by its address"),
        pytest.param("192.0.2.8", "1.1.1.1", None, "192.0.2.8", id="its neighbour is none"),
        pytest.param(
            "10.0.0.1", "6.6.6.6, 1.1.1.1", None, "1.1.1.1", id="the client's own entry is left of it"
        ),
        pytest.param("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.2.3.4", None, "1.1.1.1", id="two proxies"),
        pytest.param(
            "10.0.0.1", "10.9.9.9, 1.1.1.1", None, "1.1.1.1", id="a forged proxy left of the client"
        ),
        pytest.param("10.0.0.1", "10.3.3.3, 10.2.2.2", None, "10.3.3.3", id="all trusted: the farthest"),
        pytest.param("10.0.0.1", "1.1.1.1,10.2.3.4", None, "1.1.1.1", id="no blank after the comma"),
        pytest.param("10.0.0.1", "1.1.1.1, rubbish, 10.2.3.4", None, "10.2.3.4", id="rubbish ends the walk"),
        pytest.param(
            "10.0.0.1", "1.1.1.1, rubbish", None, "10.0.0.1", id="rubbish at once: the proxy itself"
        ),
        pytest.param("10.0.0.1", "", None, "10.0.0.1", id="an empty list"),
        pytest.param("10.0.0.1", "1.1.1.1,", None, "10.0.0.1", id="an empty entry"),
        pytest.param("10.0.0.1", "1.1.1.1:5678", None, "1.1.1.1", id="an entry with a port"),
        pytest.param("10.0.0.1", "[2001:db8::1]:5678", None, "2001:db8::1", id="IPv6 with a port"),
        pytest.param("10.0.0.1", "2001:DB8:0::1", None, "2001:db8::1", id="one spelling of IPv6"),
        pytest.param("10.0.0.1", "fe80::1%eth0", None, "10.0.0.1", id="a zone is nobody's address"),
        pytest.param("10.0.0.1", "0x7f.1", None, "10.0.0.1", id="no odd spellings of IPv4"),
        pytest.param("10.0.0.1", "1.1.1.01", None, "10.0.0.1", id="no octal"),
        pytest.param("::ffff:10.0.0.1", "1.1.1.1", None, "1.1.1.1", id="a proxy on a dual-stack socket"),
        pytest.param("::ffff:1.1.1.1", None, None, "1.1.1.1", id="a client on a dual-stack socket"),
        pytest.param("10.0.0.1", "::ffff:1.1.1.1", None, "1.1.1.1", id="the same in the list"),
        pytest.param("fd00::1", "2001:db8::1", None, "2001:db8::1", id="an IPv6 proxy"),
        pytest.param("10.0.0.1", None, "for=1.1.1.1", "1.1.1.1", id="Forwarded"),
        pytest.param(
            "10.0.0.1", None, 'For="[2001:db8::1]:4711";proto=https', "2001:db8::1", id="Forwarded, quoted"
        ),
        pytest.param(
            "10.0.0.1", None, "proto=http;for=1.1.1.1;by=x", "1.1.1.1", id="Forwarded, among others"
        ),
        pytest.param("10.0.0.1", None, "for=6.6.6.6, for=1.1.1.1", "1.1.1.1", id="Forwarded, the right-most"),
        pytest.param("10.0.0.1", None, "for=1.1.1.1, for=10.2.2.2", "1.1.1.1", id="Forwarded, two proxies"),
        pytest.param("10.0.0.1", None, "for=unknown, for=10.2.2.2", "10.2.2.2", id="Forwarded, unknown"),
        pytest.param("10.0.0.1", None, "for=_hidden", "10.0.0.1", id="Forwarded, obfuscated"),
        pytest.param("10.0.0.1", None, "proto=https", "10.0.0.1", id="Forwarded without for"),
        pytest.param("10.0.0.1", None, "for=1.1.1.1;for=2.2.2.2", "10.0.0.1", id="Forwarded with two for"),
        pytest.param(
            "10.0.0.1", None, 'for="6.6.6.6, for=1.1.1.1', "1.1.1.1", id="a quote that is never closed"
        ),
        pytest.param("10.0.0.1", None, 'for="1.1.1.1, for=10.2.2.2"', "10.0.0.1", id="a comma inside quotes"),
        pytest.param("10.0.0.1", None, "xfor=1.1.1.1", "10.0.0.1", id="another pair that ends alike"),
        pytest.param("10.0.0.1", "1.1.1.1", "for=1.1.1.1", "1.1.1.1", id="both headers, agreed"),
        pytest.param("10.0.0.1", "1.1.1.1", "for=6.6.6.6", "10.0.0.1", id="both headers, at odds: neither"),
        pytest.param("", "1.1.1.1", None, "1.1.1.1", id="a Unix socket: the proxy before it"),
        pytest.param("", "6.6.6.6, 1.1.1.1, 10.2.3.4", None, "1.1.1.1", id="a Unix socket, two proxies"),
        pytest.param(None, "1.1.1.1", None, "unknown", id="a PROXY line that names no client"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_a_trusted_proxy(
    peer: str | None, xff: str | None, forwarded: str | None, client: str
) -> None:
    assert seen(peer, xff, forwarded) == client


def test_without_trusted_proxies_the_headers_are_ignored() -> None:
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "1.1.1.1", "HTTP_FORWARDED": "for=1.1.1.1"}
    assert client_address(environ, ()) == "127.0.0.1"
    assert client_address(environ | {"REMOTE_ADDR": ""}, ()) == "", "nor from a Unix socket's peer"


def test_a_long_chain_is_followed_up_to_a_limit() -> None:
    assert seen("10.0.0.1", "1.1.1.1" + ", 10.2.2.2" * (MAX_HOPS - 1)) == "1.1.1.1"
    assert seen("10.0.0.1", "1.1.1.1" + ", 10.2.2.2" * MAX_HOPS) == "10.2.2.2"


ADDRESSES = st.ip_addresses().map(str)


@given(
    st.text(max_size=80),
    ADDRESSES.filter(lambda text: "." in text and not text.startswith(("10.", "192.0.2.7"))),
)
def test_a_clients_own_entries_do_not_change_the_result(written: str, real: str) -> None:
    assert seen("10.0.0.1", f"{written}, {real}") == real
    assert seen("10.0.0.1", None, f"{written}, for={real}") == real
    assert seen("10.0.0.1", None, f'{written}, for="{real}:99";proto=https') == real


@given(st.text(), st.text())
def test_any_headers_give_some_address(xff: str, forwarded: str) -> None:
    ipaddress.ip_address(seen("10.0.0.1", xff, forwarded))


@given(ADDRESSES)
def test_an_address_is_read_with_and_without_port(text: str) -> None:
    plain = parse_address(text)
    ported = f"[{text}]:80" if ":" in text else f"{text}:80"
    assert plain is not None and parse_address(ported) == plain


@pytest.mark.parametrize(
    "text", ["", "a", "1.2.3", "1.2.3.4.5", "1.2.3.4:", "1.2.3.4:123456", "[1.2.3.4", ":80", "１.2.3.4"]
)
def test_anything_else_is_not_an_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("", ""),
    ],
)
def test_clients_are_counted_by_address_or_ipv6_site(address: str, bucket: str) -> None:
    assert address_bucket(address) == bucket


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "proxy.example", "10.0.0.0-10.0.0.9", "*"])
def test_an_invalid_network_is_quoted(entry: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a network") as refused:
        parse_networks((entry,))
    assert repr(entry) in str(refused.value)
