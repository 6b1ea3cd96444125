"""Redis URLs: which servers, which credentials, which options.

    redis://[[user]:password@]host[:port][/db]
    rediss://…                                      the same over TLS
    redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/service     (rediss+sentinel: over TLS)

    ?db=0                   database, with Sentinel (otherwise the path names it)
    ?replicas=1             an event counts as stored once this many replicas have it, too (WAIT). With 0, the
                            newest events of a master that dies can be missing on the replica that takes its place;
                            clients are told. Default: 1 with Sentinel, which is there for failovers, else 0.
    ?sync=full              an event counts as stored once it is in the append-only file on the master's disk (WAITAOF;
                            Redis 7.2 or newer, or Valkey, with appendonly yes and appendfsync always). What replicas
                            have on their disks it does not say
    ?ssl_ca_certs=, ssl_certfile=, ssl_keyfile=     files, PEM
    ?ssl_check_hostname=0, ?ssl_cert_reqs=none      weaken the check of the server's certificate

The user needs the keys ``~{prefix}:*`` (braces included) and these commands: info type time ping scan eval evalsha
exists del unlink rename set get pexpire pttl xadd xdel xlen xread xrange xrevrange xtrim xinfo xsetid zadd zcard
zlexcount zrange zrangebylex zrangebyscore zrem zremrangebylex zrevrange zrevrangebylex zscan hdel hexists hget hgetall
hincrby hlen hmget hset; unless ``replicas`` is 0, wait as well; with ``sync``, waitaof
and config|get. (role, if allowed, is used with Sentinel.)

Anything else in a URL is refused: silently ignoring an option would silently break what it promises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
MAX_REPLICAS: Final = 16

_SSL_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]+")  # names, IPv4, IPv6 with its zone
_YES_NO: Final = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says. hosts: the server, or all Sentinels."""

    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""  # the name by which Sentinels know the master; empty without Sentinel
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: bool = False
    ssl: dict[str, Any] = field(default_factory=dict)
    replicas: int = 0
    sync: bool = False

    @property
    def confirmed(self) -> bool:
        """True if a write is acknowledged only once replicas or the disk have it."""
        return self.sync or self.replicas > 0

    @property
    def where(self) -> str:
        """The servers, for messages: never with credentials."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.service} (Sentinel {hosts})" if self.service else hosts


def parse_url(url: str) -> RedisUrl:
    """Return what a Redis URL says. Raises ``ValueError`` with the reason, and without the URL."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "redis+sentinel", "rediss+sentinel"):
        raise ValueError("not a Redis URL")
    # The very last @ ends the credentials: a password may hold @, / and ? that nobody escaped.
    credentials, at, rest = rest.rpartition("@")
    address, _, query = rest.partition("?")
    hosts, _, path = address.partition("/")
    username, colon, password = credentials.partition(":")
    if at and not colon:
        raise ValueError("a user without a password (user:password@, or :password@)")
    path = unquote(path)
    options = _options(query)
    known: dict[str, Any] = {
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "tls": scheme.startswith("rediss"),
    }
    if scheme.endswith("+sentinel"):
        if not path or "/" in path:
            raise ValueError("the name of the service is missing or not one word")
        known |= {"service": path, "hosts": tuple(_host(host, SENTINEL_PORT) for host in hosts.split(","))}
    else:
        known["hosts"] = (_host(hosts, REDIS_PORT),)
        if path:
            options["db"] = _number("database", path, 2**31 - 1)
    if options["ssl"] and not known["tls"]:
        raise ValueError("ssl_… options need rediss")
    options.setdefault("replicas", 1 if "service" in known else 0)
    return RedisUrl(**options, **known)


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", port if parts.port is None else parts.port
    except ValueError:
        host = ""
    if not _HOST.fullmatch(host) or not port or parts.path:
        raise ValueError("a host or its port is not valid")
    return host, port


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise ValueError(f"{name} must be a number from 0 to {most}")
    return int(text)


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {"ssl": {}}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "db":
            options["db"] = _number("db", value, 2**31 - 1)
        elif name == "replicas":
            options["replicas"] = _number("replicas", value, MAX_REPLICAS)
        elif name == "sync" and value == "full":
            options["sync"] = True
        elif name in _SSL_FILES and value:
            options["ssl"][name] = value
        elif name == "ssl_check_hostname" and value.lower() in _YES_NO:
            options["ssl"][name] = _YES_NO[value.lower()]
        elif name == "ssl_cert_reqs" and value in ("none", "optional", "required"):
            options["ssl"][name] = value
        else:
            raise ValueError(f"the option {name} is unknown or its value is not valid")
    return options
