r"""Whose page, and whose machine, a request comes from: Origin, Host and forwarded headers.

Needed where no key stands in the way of a web page that a user happens to have open:

- *Local publishing* (no key, listening on loopback only) trusts everybody on this machine. A browser on this
  machine runs other people's pages, and each could POST to ``http://localhost:8080`` without being asked
  (a "simple" request needs no preflight), or rebind its own DNS name to 127.0.0.1 and be same-origin. The
  first shows in Origin and Sec-Fetch-Site, the second in Host. A reverse proxy on this machine would lend its
  own loopback address to the whole internet: it shows in the headers that proxies add.
- *Cookies* are sent by the browser whichever page asks: publishing by cookie needs an Origin that is ours.

What a proxy adds can be forged by anyone who is not behind one: such headers are believed only when the peer
is one of SSE_TRUSTED_PROXIES. Their mere presence is enough for a refusal.
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
# Anchored by fullmatch, ASCII only: what passes can go back into a header.
_AUTHORITY: Final = r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
_HOST: Final = re.compile(_AUTHORITY)
_ORIGIN: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30})://" + _AUTHORITY)

# RFC 7239, RFC 9110 §7.6.3, and what nginx's examples send. Whatever begins with X-Forwarded is caught as
# such.
_FORWARDED_HEADERS: Final = frozenset({"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"})


class Origin(NamedTuple):
    """A parsed origin. `port` is None for the scheme's default, so that equal origins compare equal."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """The origin, in lower case and with a default port left out; None for ``null`` and for anything else
    that
    is not ``scheme://host[:port]``."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found["scheme"].lower()
    split = _split(found["host"], found["port"])
    if split is None:
        return None
    host, port = split
    return Origin(scheme, host, None if port == _DEFAULT_PORTS.get(scheme) else port)


@lru_cache(maxsize=256)  # the same few come with every request
def parse_host(text: str) -> tuple[str, int | None] | None:
    """Host and port of a Host header, the host in lower case and without brackets; None if it is
    malformed."""
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
    """SSE_CORS_ORIGINS as a set of origins; ``*`` is left out, it is nobody in particular.

    `origins` must be a tuple (hashable). Raises ValueError that quotes the entry that is none.
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
    """True if the allow-list names `origin`. ``*`` names nobody: it never lets a page use a user's cookie."""
    parsed = parse_origin(origin)
    return parsed is not None and parsed in parse_allow_list(tuple(origins))


def is_own(origin: str, environ: Environ, trusted: Networks = ()) -> bool:
    """True if `origin` is the one that this request was sent to.

    Compares host and port. The scheme counts only when the request is known to have come by TLS (then a page
    from plain http, which anyone on the way can write, is foreign): behind a proxy that ends TLS and does not
    say so, the request looks like http while the page is https.
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
    """A forwarded header, if a trusted proxy sent it. Several values in one are neither host nor scheme."""
    value = environ.get(name)
    if not isinstance(value, str) or not is_trusted(peer_address(environ), trusted):
        return None
    return value.strip()


# --- Local publishing ---------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def is_loopback_host(host: str) -> bool:
    """True for ``localhost``, 127.0.0.0/8 and ::1, as `parse_host` gives them; for no other name or
    spelling."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback


def all_loopback(addresses: Iterable[object]) -> bool:
    """True if each address that is listened on can be reached from this machine only.

    An address is what ``socket.getsockname()`` gives, or text such as ``127.0.0.1:8080`` or ``[::1]:8080``.
    None at all, or any that is not understood (a Unix socket has a proxy in front of it), makes it False.
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
    """Why this request may not publish without a key on a loopback address; None if it may.

    The answer is one sentence for the developer whose request it was; it repeats nothing from the request.
    """
    if not _is_loopback_peer(peer_address(environ)):
        return "it does not come from this machine"
    if not _FORWARDED_HEADERS.isdisjoint(environ) or (
        # One look at all names together, in each publish, before one at each of them.
        "HTTP_X_FORWARDED" in "\n".join(environ) and [name for name in environ if name.startswith("HTTP_X_FORWARDED")]
    ):
        return "it was forwarded by a proxy (Forwarded, X-Forwarded-*, X-Real-IP or Via is set)"
    host = parse_host(environ.get("HTTP_HOST", ""))
    if host is None or not is_loopback_host(host[0]):
        return "its Host is not localhost, 127.0.0.0/8 or [::1], as with DNS rebinding"
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and is_allowed(origin, cors_origins):
        return None
    if origin is not None and not is_own(origin, environ):
        return "its Origin is another site's, and SSE_CORS_ORIGINS does not name it"
    # https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header. "none" is the user's own doing (address
    # bar).
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
        return "Sec-Fetch-Site says that another site's page sent it"
    return None
