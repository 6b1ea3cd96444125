"""Checks which page and which machine a request is from: Origin, Host and forwarded headers.

These checks stop web pages that a user happens to have open, where no key stops them:

- *Local publishing* (no key, listening on loopback addresses only) trusts every program on this machine. But a browser
  here runs other people's pages. One could POST to ``http://localhost:8080`` (a "simple" request needs no preflight);
  we see that in Origin and Sec-Fetch-Site. It could also rebind its DNS name to 127.0.0.1, and so be same-origin; we
  see that in Host. And a reverse proxy on this machine gives the whole internet a loopback address; we see the headers
  that proxies add.
- *Cookies*: browsers send them whichever page makes the request, so publishing with one needs an Origin that is ours.

Anybody can forge a proxy's headers. We believe them only if the peer is one of SSE_TRUSTED_PROXIES; but their presence
is always enough for a refusal.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from .address import Networks, is_trusted, parse_address, peer_address

Environ = Mapping[str, Any]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# RFC 6454 §6.2: scheme "://" host [ ":" port ]; RFC 9110 §7.2: host [ ":" port ]. 253 is DNS's longest name.
# ASCII only, so we may send a match back in a header. Used with fullmatch.
_AUTHORITY: Final = r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
_HOST: Final = re.compile(_AUTHORITY)
_ORIGIN: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30})://" + _AUTHORITY)

# RFC 7239, RFC 9110 §7.6.3, and nginx's examples. Names that begin with X-Forwarded are checked separately.
_FORWARDED_HEADERS: Final = frozenset({"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"})


class Origin(NamedTuple):
    """A parsed origin. ``port`` is None for the scheme's default, so that equal origins compare equal."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """Parse ``scheme://host[:port]``, case-insensitively; None for ``null`` and anything else."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found["scheme"].lower()
    split = _split(found["host"], found["port"])
    return split and Origin(scheme, split[0], None if split[1] == _DEFAULT_PORTS.get(scheme) else split[1])


@lru_cache(maxsize=256)  # requests repeat the same few
def parse_host(text: str) -> tuple[str, int | None] | None:
    """Parse a Host header: the host in lower case without brackets, and the port; None if it is malformed."""
    found = _HOST.fullmatch(text)
    return _split(found["host"], found["port"]) if found else None


def _split(host: str, port: str | None) -> tuple[str, int | None] | None:
    if port is not None and not 1 <= int(port) <= 65535:
        return None
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    return host.lower(), None if port is None else int(port)


@lru_cache(maxsize=32)
def parse_allow_list(origins: Sequence[str]) -> frozenset[Origin]:
    """Parse SSE_CORS_ORIGINS (a tuple, as it must be hashable). Skips ``*``, which names no origin.

    Raises ValueError, which quotes the invalid entry.
    """
    allowed = set()
    for entry in origins:
        if entry == "*":
            continue
        origin = parse_origin(entry.removesuffix("/"))
        if origin is None:
            raise ValueError(f"{entry!r} is not an origin: write scheme://host or scheme://host:port")
        allowed.add(origin)
    return frozenset(allowed)


def is_allowed(origin: str, origins: Sequence[str]) -> bool:
    """True if the allow-list names ``origin``. ``*`` names none, so it never lets a page use its visitor's cookie."""
    parsed = parse_origin(origin)
    return parsed is not None and parsed in parse_allow_list(tuple(origins))


def is_own(origin: str, environ: Environ, trusted: Networks = ()) -> bool:
    """True if the request was sent to ``origin``.

    Compares host and port, and the scheme only if we know that the request used TLS: then a page from plain http, which
    anybody on the path can change, is another origin. Behind a proxy that ends TLS and does not say so, the request
    looks like http even though the page is https.
    """
    parsed = parse_origin(origin)
    forwarded_host = _forwarded(environ, "HTTP_X_FORWARDED_HOST", trusted)
    sent_to = parse_host(forwarded_host or environ.get("HTTP_HOST", ""))
    if parsed is None or sent_to is None or parsed.scheme not in _DEFAULT_PORTS:
        return False
    seen_scheme = _forwarded(environ, "HTTP_X_FORWARDED_PROTO", trusted) or environ.get("wsgi.url_scheme")
    if seen_scheme == "https" and parsed.scheme != "https":
        return False
    host, port = sent_to
    return parsed.host == host and parsed.port == (None if port == _DEFAULT_PORTS[parsed.scheme] else port)


def _forwarded(environ: Environ, name: str, trusted: Networks) -> str | None:
    """Return a forwarded header if a trusted proxy sent it. A list of values is later rejected by the parsers."""
    value = environ.get(name)
    if not isinstance(value, str) or not is_trusted(peer_address(environ), trusted):
        return None
    return value.strip()


@lru_cache(maxsize=256)
def is_loopback_host(host: str) -> bool:
    """True for ``localhost``, 127.0.0.0/8 and ::1, spelled as ``parse_host`` returns them."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def all_loopback(addresses: Iterable[object]) -> bool:
    """True if only this machine can reach the addresses that we listen on.

    addresses: as ``socket.getsockname()`` returns them, or text such as ``127.0.0.1:8080`` or ``[::1]:8080``. False for
    none, and for any that we do not understand: a Unix socket, for example, has a proxy in front of it.
    """
    hosts = [_listening_host(address) for address in addresses]
    return bool(hosts) and all(host is not None and is_loopback_host(host) for host in hosts)


def _listening_host(address: object) -> str | None:
    if isinstance(address, tuple) and address and isinstance(address[0], str):
        return address[0]
    if isinstance(address, str):
        parsed = parse_host(address)
        return parsed[0] if parsed else None
    return None


@lru_cache(maxsize=256)
def _is_loopback_peer(text: str) -> bool:
    peer = parse_address(text)
    return peer is not None and peer.is_loopback


def local_publish_refusal(environ: Environ, cors_origins: Sequence[str]) -> str | None:
    """Return why this request may not publish without a key; None if it may. We listen on loopback addresses only.

    The reason is a clause for the developer who sent the request, and quotes nothing from it.
    """
    if not _is_loopback_peer(peer_address(environ)):
        return "this one is not from this machine"
    if not _FORWARDED_HEADERS.isdisjoint(environ) or (
        # Each publish pays for this: search all names at once before looking at each.
        "HTTP_X_FORWARDED" in "\n".join(environ) and [name for name in environ if name.startswith("HTTP_X_FORWARDED")]
    ):
        return "a proxy forwarded this one (it has Forwarded, X-Forwarded-*, X-Real-IP or Via)"
    host = parse_host(environ.get("HTTP_HOST", ""))
    if host is None or not is_loopback_host(host[0]):
        return "the Host of this one is not localhost, 127.0.0.0/8 or [::1], as in DNS rebinding"
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and is_allowed(origin, cors_origins):
        return None
    if origin is not None and not is_own(origin, environ):
        return "the Origin of this one is another site, which SSE_CORS_ORIGINS does not name"
    # https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header. "none": the user typed the address.
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
        return "another site's page sent this one (Sec-Fetch-Site)"
    return None
