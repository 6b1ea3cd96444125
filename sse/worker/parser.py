"""gunicorn's request and configuration, without computing the same values for each request."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gunicorn.http.message import Request as GunicornRequest
from gunicorn.http.message import _ip_in_allow_list


class Request(GunicornRequest):
    """gunicorn's request, but it finds out once per peer, not per request, whether the peer is a trusted proxy.

    To parse the address and compare it with networks is a sixth of the cost of reading a small request.
    """

    # The remembered head that this request was made from, or is remembered as (:mod:`sse.worker.head_memory`).
    head: object | None = None
    # What ``environ["sse.repeat"]`` raised for this request: the app has to answer it.
    raised: Exception | None = None

    def _peer_is_trusted_proxy(self) -> bool:
        addr = self.peer_addr
        return not isinstance(addr, tuple) or is_trusted_proxy(self.cfg, addr[0])


class CachedConfig:
    """gunicorn's configuration as requests read it: looks each name up once.

    ``Config`` computes an attribute at each access, and a request reads about forty. The cache never goes stale,
    because a reload starts new workers.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = self.__dict__[name] = getattr(self._cfg, name)
        return value


@lru_cache(maxsize=4096)
def is_trusted_proxy(cfg: Any, host: str) -> bool:
    """Return whether a peer with this address may say what scheme its client used (``forwarded_allow_ips``)."""
    trusted: bool = _ip_in_allow_list(host, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks())
    return trusted
