"""Centrifugo 6 with its unidirectional SSE transport, and its memory engine or its Redis engine.

Built with `go install`; CENTRIFUGO_BIN takes the path of a binary. Written from its documentation (centrifugal.dev:
"Unidirectional SSE", "Server API", "History and stream recovery"). Its events carry an envelope around the data,
{"channel":…,"pub":{"data":…,"offset":…}}. History and recovery are on, because without them a reconnecting client
loses what it missed. The cursor is an epoch and an offset in the connect request, not Last-Event-ID, so an EventSource
that reconnects on its own gets nothing of it, and the storm is not measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer, Target, free_port
from bench.peers.redis_server import redis_command

MODULE, VERSION = "github.com/centrifugal/centrifugo/v6", "v6.9.1"
BINARY = "CENTRIFUGO_BIN"
KEY = "bench"
HISTORY = 10_000  # events a channel, as many as nchan keeps here


class Centrifugo(Peer):
    """Anonymous streams that name their channel in the connect request."""

    ready_path = "/health"
    target = Target(
        path="/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{channel}%22%3A%7B%7D%7D%7D",
        publish_path="/api/publish",
        body='{"channel":"{channel}","data":{data}}',
        content_type="application/json",
        publish_headers=(f"X-API-Key: {KEY}",),
    )

    def __init__(self, engine: str = "memory") -> None:
        self._has_redis = engine == "redis"
        self.name = "centrifugo-redis" if self._has_redis else "centrifugo"
        self.title = f"Centrifugo ({'Redis' if self._has_redis else 'memory'})"
        self.stores = (
            "the event, in Redis's memory (its append-only file is off here)"
            if self._has_redis
            else "the event, in the process's memory"
        )

    def prepare(self) -> None:
        if self._has_redis:
            build.program("redis-server")
        self._binary()

    @staticmethod
    def _binary() -> str:
        if BINARY in os.environ:
            return build.program("centrifugo", BINARY)
        return str(build.go_install(MODULE, VERSION))

    def version(self) -> str:
        which = "the binary of CENTRIFUGO_BIN" if BINARY in os.environ else f"{VERSION[1:]}, Go {build.go().version}"
        return f"Centrifugo {which}, history and recovery on"

    def configuration(self, port: int, streams: int, redis_port: int = 0) -> dict[str, object]:
        """Return the server's configuration."""
        engine: dict[str, object] = {"type": "memory"}
        if self._has_redis:
            engine = {"type": "redis", "redis": {"address": [f"redis://127.0.0.1:{redis_port}"]}}
        return {
            "http_server": {"address": "127.0.0.1", "port": port},
            "log": {"level": "error"},
            "health": {"enabled": True},
            "http_api": {"key": KEY},
            "uni_sse": {"enabled": True},
            "engine": engine,
            "client": {
                "allow_anonymous_connect_without_token": True,
                "connection_limit": streams + 100,
                "ping_interval": "15s",
                "pong_timeout": "8s",
            },
            "channel": {
                "without_namespace": {
                    "allow_subscribe_for_client": True,
                    "allow_subscribe_for_anonymous": True,
                    "history_size": HISTORY,
                    "history_ttl": "300s",
                    "force_recovery": True,
                }
            },
        }

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        redis_port = free_port()
        helpers = [redis_command(redis_port, folder)] if self._has_redis else []
        path = folder / "config.json"
        path.write_text(json.dumps(self.configuration(port, streams, redis_port)))
        return [*helpers, Command([self._binary(), "--config", str(path)], {}, folder)]
