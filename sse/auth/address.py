"""Finds the client's address, also behind proxies, and the part of it that per-client limits count by.

A client can write anything into X-Forwarded-For; each proxy appends the address that it saw. So we read the list from
the right, as long as the hop that wrote an entry is in SSE_TRUSTED_PROXIES: the first address that is not a trusted
proxy is the client. Entries further left are unverified.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks: TypeAlias = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

# Longer than any real proxy chain. A 16 KB header holds 2,000 addresses; parsing them all would let an
# unauthenticated sender decide how much CPU time we spend.
MAX_HOPS: Final = 32

# One customer's line. RFC 6177 gives a site at least a /64, so one site could use a per-address limit
# 2^64 times.
IPV6_SITE_BITS: Final = 64

# RFC 7239 §4: for=token, or for="quoted" (needed for IPv6 and ports), among other pairs separated by ";".
_FORWARDED_FOR: Final = re.compile(
    r"(?:^|;)\s*for\s*=\s*(?:\"([^\"\\]*)\"|([^\s\";,]+))\s*(?=;|$)", re.IGNORECASE
)
_WITH_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


@lru_cache(maxsize=32)
def parse_networks(entries: tuple[str, ...]) -> Networks:
    """Parse SSE_TRUSTED_PROXIES: addresses and networks in CIDR form; host bits may be set.

    Raises ValueError, which quotes the invalid entry.
    """
    networks = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            raise ValueError(f"{entry!r} is neither an IP address nor a network such as 10.0.0.0/8") from None
    return tuple(networks)


@lru_cache(maxsize=4096)  # requests repeat the same peers and hosts
def parse_address(text: str) -> Address | None:
    """Parse an IP address, with or without port and brackets; None for anything else.

    An IPv4-mapped IPv6 address (``::ffff:192.0.2.1``, as a dual-stack socket reports it) becomes IPv4, so that
    one client has one address. An address with a zone (``%eth0``) is rejected: it cannot come from outside.
    """
    found = _WITH_PORT.fullmatch(text)
    if found:
        text = found[1] or found[2]
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_trusted(peer: str, trusted: Networks) -> bool:
    """True if ``peer`` is in one of the networks, or is a Unix socket ("") and ``trusted`` is not empty.

    Only a local proxy has reason to connect to a Unix socket, and the file's permissions decide who may. But if no
    trusted proxy is configured, its headers cannot be believed: nginx passes on what the client wrote.
    """
    if not peer:
        return bool(trusted)
    address = parse_address(peer) if trusted else None
    return address is not None and any(address in network for network in trusted)


def peer_address(environ: Mapping[str, Any]) -> str:
    """Return the peer's address; "" for a Unix socket; "unknown" (never trusted) after a PROXY line without a client,
    for which gunicorn sets REMOTE_ADDR to None."""
    peer: str | None = environ.get("REMOTE_ADDR", "")
    return "unknown" if peer is None else peer


def client_address(environ: Mapping[str, Any], trusted: Networks) -> str:
    """Return the client's IP address as text; the peer's if that is not a trusted proxy; "" for a Unix
    socket whose client no believable header names.

    Reads X-Forwarded-For and Forwarded (RFC 7239). A proxy usually maintains one of them and passes the other on
    as the client sent it. So if both are present and disagree, we believe neither and return the proxy's address.
    """
    peer = peer_address(environ)
    if not is_trusted(peer, trusted):
        return _canonical(peer)
    by_list = environ.get("HTTP_X_FORWARDED_FOR")
    by_rfc = environ.get("HTTP_FORWARDED")
    found = {
        _rightmost_untrusted(peer, hops, trusted)
        for hops in (
            _list_entries(by_list) if by_list is not None else None,
            _forwarded_entries(by_rfc) if by_rfc is not None else None,
        )
        if hops is not None
    }
    return found.pop() if len(found) == 1 else _canonical(peer)


@lru_cache(maxsize=4096)
def address_bucket(address: str) -> str:
    """Return the key for per-client limits: the address, or the /64 of an IPv6 address."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))
    return str(parsed) if parsed else address


@lru_cache(maxsize=4096)  # clients behind one proxy share one string
def _canonical(peer: str) -> str:
    return str(parse_address(peer) or peer)


def _rightmost_untrusted(peer: str, hops: Iterator[Address | None], trusted: Networks) -> str:
    """Walk from the nearest proxy towards the client. An entry that is not an address (``unknown``, an
    obfuscated name, garbage) ends the walk at the last valid hop."""
    last = _canonical(peer)
    for address in hops:
        if address is None:
            break
        last = str(address)
        if not any(address in network for network in trusted):
            break
    return last


def _list_entries(header: str) -> Iterator[Address | None]:
    for entry in reversed(header.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        yield parse_address(entry.strip())


def _forwarded_entries(header: str) -> Iterator[Address | None]:
    # A comma inside a quoted string splits an element in two. No address contains one; the pieces do not parse
    # and end the walk.
    for entry in reversed(header.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        found = _FORWARDED_FOR.findall(entry)
        yield parse_address(found[0][0] or found[0][1]) if len(found) == 1 else None
