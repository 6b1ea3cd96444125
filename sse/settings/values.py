"""Types for setting values other than plain numbers.

Each turns text from the environment into a validated value. All validators raise ``ValueError`` with a short reason,
without the value: the error report adds it, redacted where it may contain a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from ..auth.address import parse_networks
from ..auth.algorithms import SUPPORTED
from ..auth.origin import parse_origin
from ..auth.publish_key import check_publish_key
from ..events.patterns import check_pattern
from ..log import check_url
from ..log.redis.codec import PREFIX
from ..log.retain import parse_rules

# RFC 1123 §2.1. The last label may not be a number: "256.1.1.1" is a typo, not a name.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
# Segments of RFC 3986's unreserved characters: no proxy and no framework changes them.
_URL_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_TAKEN = frozenset({"console", "openapi.json", "healthz", "livez", "readyz", "startupz", "metrics"})
_BESIDE = frozenset({"channels", "streams", "runs"})  # they stand beside the prefix
_MAX_SERVER_HEADER = 256    # characters; every response carries it


def _host(text: str) -> str:
    """Check an address or host name to listen on; remove the brackets of an IPv6 address."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if len(text) > 253 or not _HOST_NAME.fullmatch(text):
        raise ValueError("neither an IP address nor a host name")
    return text


def _log_url(text: str) -> str:
    check_url(text)
    return text


def _url_prefix(text: str) -> str:
    if not _URL_PREFIX.fullmatch(text):
        raise ValueError("not a path of plain segments")
    segments = text.split("/")[1:]
    if {".", ".."} & set(segments) or segments[0] in _TAKEN or segments[-1] in _BESIDE:
        raise ValueError("taken by another route")
    return text


def _secret_key(secret: SecretStr) -> SecretStr:
    check_publish_key(secret.get_secret_value())
    return secret


def _server_header(text: str) -> str:
    if len(text) > _MAX_SERVER_HEADER:
        raise ValueError("too long")
    if not text.isascii() or not (text.isprintable() or text == ""):
        raise ValueError("not printable ASCII")     # a line break would inject another header
    return text


def _redis_prefix(text: str) -> str:
    if not PREFIX.fullmatch(text):
        raise ValueError("not usable in a key")
    return text


def _split(value: object) -> object:
    """Split ``"a, b"`` into ``("a", "b")``; convert lists and sets (from ``app.config``) to tuples."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | set | frozenset):
        return tuple(value)
    return value


def _algorithms(names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(names)
    if not set(names) <= set(SUPPORTED):
        raise ValueError("unknown, or not safe enough")
    return names


def _channel_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(check_pattern(pattern) for pattern in patterns)
    except ValueError:
        raise ValueError("not a channel name") from None


def _retain_rules(rules: Iterable[str]) -> tuple[str, ...]:
    rules = tuple(rules)
    parse_rules(rules)
    return rules


def _origins(origins: Iterable[str]) -> tuple[str, ...]:
    origins = tuple(origin.lower().removesuffix("/") for origin in origins)
    for origin in origins:
        parsed = parse_origin(origin)
        if origin != "*" and (parsed is None or parsed.scheme not in ("http", "https")):
            raise ValueError("not an origin")
    return origins


def _networks(networks: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(str(network) for network in parse_networks(tuple(networks)))
    except ValueError:      # its message quotes the value, and the report adds that, too
        raise ValueError("not an address or a network") from None


Host = Annotated[str, AfterValidator(_host)]
LogUrl = Annotated[str, AfterValidator(_log_url)]
SecretKey = Annotated[SecretStr, AfterValidator(_secret_key)]
ServerHeader = Annotated[str, AfterValidator(_server_header)]
UrlPrefix = Annotated[str, AfterValidator(_url_prefix)]
RedisPrefix = Annotated[str, AfterValidator(_redis_prefix)]

_Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
Algorithms = Annotated[_Words, AfterValidator(_algorithms)]
ChannelPatterns = Annotated[_Words, AfterValidator(_channel_patterns)]
RetainRules = Annotated[_Words, AfterValidator(_retain_rules)]
Origins = Annotated[_Words, AfterValidator(_origins)]
Networks = Annotated[_Words, AfterValidator(_networks)]

Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
