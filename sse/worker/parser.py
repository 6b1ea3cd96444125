"""gunicorn's parsed request, and its configuration, with what they compute for each request remembered."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gunicorn.http.message import Request as GunicornRequest
from gunicorn.http.message import _ip_in_allow_list


class Request(GunicornRequest):
    """gunicorn's request, but whether a peer is a trusted proxy is worked out once and not for each of its requests.

    That parses its address and compares it with networks: a sixth of the cost of reading a small request.
    """

    # The remembered head that it was made from, or was stored as (see :mod:`sse.worker.head_memory`).
    head: object | None = None

    def _peer_is_trusted_proxy(self) -> bool:
        addr = self.peer_addr
        return not isinstance(addr, tuple) or is_trusted_proxy(self.cfg, addr[0])


class CachedConfig:
    """gunicorn's configuration for the path of a request: looks each name up once.

    ``Config`` computes an attribute at each access, and a request reads about forty. A reload starts new workers, and
    each has a cache of its own.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__[name] = getattr(self._cfg, name)
        return value


@lru_cache(maxsize=4096)
def is_trusted_proxy(cfg: Any, host: str) -> bool:
    """True if a peer with this address may say what its proxy saw (``forwarded_allow_ips``)."""
    trusted: bool = _ip_in_allow_list(host, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks())
    return trusted
