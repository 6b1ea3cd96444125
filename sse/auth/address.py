"""The address of the client, also behind proxies; and by what part of it clients are counted.

A client writes what it likes into X-Forwarded-For; each proxy appends the address that it saw. So the list is
read from the right, and only for as long as the hop that wrote an entry is one of SSE_TRUSTED_PROXIES: the
first address that is not a trusted proxy's is the client. What stands left of it is the client's own word.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks: TypeAlias = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

# More proxies in a row than anybody runs. A header of 16 KB holds 2,000 addresses; parsing all of them for a
# request that has shown no credentials yet would be the sender's choice of our time.
MAX_HOPS: Final = 32

# One customer's line: RFC 6177 gives a site a /64 at the very least, so that a limit per IPv6 address would
# be 2^64 times the limit.
IPV6_SITE_BITS: Final = 64

# RFC 7239 §4: for=token, or for="quoted" (needed for IPv6 and ports), among other pairs separated by ";".
_FORWARDED_FOR: Final = re.compile(
    r"(?:^|;)\s*for\s*=\s*(?:\"([^\"\\]*)\"|([^\s\";,]+))\s*(?=;|$)", re.IGNORECASE
)
_WITH_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


@lru_cache(maxsize=32)
def parse_networks(entries: tuple[str, ...]) -> Networks:
    """SSE_TRUSTED_PROXIES: addresses and networks in CIDR form; host bits may be set.

    Raises ValueError that quotes the entry that is neither.
    """
    networks = []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            raise ValueError(f"{entry!r} is neither an IP address nor a network such as 10.0.0.0/8") from None
    return tuple(networks)


@lru_cache(maxsize=4096)  # the same peers and hosts come with every request
def parse_address(text: str) -> Address | None:
    """An IP address, with or without port and brackets; None for anything else.

    An IPv4 address that was mapped into IPv6 (``::ffff:192.0.2.1``, as a dual-stack socket reports it) is
    given as IPv4, so that one client has one address. A zone (``%eth0``) is nobody's address from outside.
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
    """True if `peer` lies in one of the networks, or is a Unix socket's ("") and there are any.

    Only a local proxy has reason to connect to a Unix socket, and the file's permissions say who may. Without any
    trusted proxy nobody has said that its headers can be believed: nginx passes on what the client wrote.
    """
    if not peer:
        return bool(trusted)
    address = parse_address(peer) if trusted else None
    return address is not None and any(address in network for network in trusted)


def peer_address(environ: Mapping[str, Any]) -> str:
    """The peer's address; "" for a Unix socket; "unknown", which nobody trusts, after a PROXY line that names no client
    (gunicorn's REMOTE_ADDR is None then)."""
    peer: str | None = environ.get("REMOTE_ADDR", "")
    return "unknown" if peer is None else peer


def client_address(environ: Mapping[str, Any], trusted: Networks) -> str:
    """The client's IP address as text; the peer's, if that is not a trusted proxy; "" for a Unix
    socket of which nobody says whom it serves.

    X-Forwarded-For and Forwarded (RFC 7239) are both understood. A proxy usually maintains one of them and
    lets the other pass as the client sent it; so when both are there and do not agree, neither is believed,
    and the answer is the proxy itself.
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
    """What limits per client are counted by: the address, or for IPv6 the /64 that it lies in."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))
    return str(parsed) if parsed else address


@lru_cache(maxsize=4096)  # and a crowd behind one proxy shares one string
def _canonical(peer: str) -> str:
    return str(parse_address(peer) or peer)


def _rightmost_untrusted(peer: str, hops: Iterator[Address | None], trusted: Networks) -> str:
    """Walks from the proxy next to us towards the client. An entry that is no address (``unknown``, an
    obfuscated name, rubbish) ends the walk at the last hop that could be named."""
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
    # A comma inside a quoted string would cut an element in two. No address needs one; the pieces are
    # unreadable, and end the walk.
    for entry in reversed(header.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        found = _FORWARDED_FOR.findall(entry)
        yield parse_address(found[0][0] or found[0][1]) if len(found) == 1 else None
