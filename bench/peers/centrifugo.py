"""Centrifugo 6 with its unidirectional SSE transport; its binary's path comes from CENTRIFUGO_BIN.

Written from its documentation (centrifugal.dev: "Unidirectional SSE", "Server API", "Configure Centrifugo").
Its events carry an envelope around the data, {"pub":{"data":…}}, and no ids.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer, Target

KEY = "bench"


class Centrifugo(Peer):
    """Anonymous streams that name their channel in the connect request."""

    name = "centrifugo"
    title = "Centrifugo"
    ready_path = "/health"
    target = Target(
        path="/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{channel}%22%3A%7B%7D%7D%7D",
        publish_path="/api/publish",
        body='{"channel":"{channel}","data":{data}}',
        content_type="application/json",
        publish_headers=(f"X-API-Key: {KEY}",),
    )

    def prepare(self) -> None:
        build.program("centrifugo", "CENTRIFUGO_BIN")

    def version(self) -> str:
        binary = build.program("centrifugo", "CENTRIFUGO_BIN")
        return subprocess.run([binary, "version"], capture_output=True, text=True).stdout.strip()

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        configuration = {
            "http_server": {"address": "127.0.0.1", "port": port},
            "log": {"level": "error"},
            "health": {"enabled": True},
            "http_api": {"key": KEY},
            "uni_sse": {"enabled": True},
            "client": {"allow_anonymous_connect_without_token": True, "connection_limit": streams + 100},
            "channel": {
                "without_namespace": {
                    "allow_subscribe_for_client": True,
                    "allow_subscribe_for_anonymous": True,
                }
            },
        }
        path = folder / "config.json"
        path.write_text(json.dumps(configuration))
        return [Command([build.program("centrifugo", "CENTRIFUGO_BIN"), "--config", str(path)], {}, folder)]
