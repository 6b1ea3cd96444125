"""Mercure's hub, with its Bolt transport and with its local one.

Built from its library (`mercure_app/main.go`). MERCURE_BIN takes the path of the hub as it is distributed, on Caddy.
Written from its documentation (mercure.rocks: "Configuration") and source: `bolt.go` opens the database with Bolt's
defaults and commits one transaction per event, and each commit calls fdatasync; `local.go` stores nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import NOTHING, Command, Peer, Target

SOURCE = build.BENCH / "peers" / "mercure_app"
BINARY = "MERCURE_BIN"
KEY = "!ChangeThisMercureHubJWTSecretKey!"

CADDYFILE = """
{{
    admin off
    auto_https off
    persist_config off
}}
http://127.0.0.1:{port} {{
    mercure {{
        publisher_jwt {key}
        subscriber_jwt {key}
        anonymous
        heartbeat 15s
        transport {transport}
    }}
    respond /healthz 200
    respond "Not Found" 404
}}
"""


def publisher_token() -> str:
    """Mint a JWT (HS256) that may publish everything."""

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{head}.{encoded(json.dumps({'mercure': {'publish': ['*']}}).encode())}"
    return f"{signed}.{encoded(hmac.new(KEY.encode(), signed.encode(), hashlib.sha256).digest())}"


class Mercure(Peer):
    """Publishes by form: topic and data."""

    target = Target(
        path="/.well-known/mercure?topic={channel}",
        publish_path="/.well-known/mercure",
        body="topic={channel}&data={data:url}",
        content_type="application/x-www-form-urlencoded",
        publish_headers=(f"Authorization: Bearer {publisher_token()}",),
    )

    def __init__(self, transport: str = "bolt") -> None:
        self._has_bolt = self.resumes = self.is_durable = transport == "bolt"
        self.name = "mercure" if self._has_bolt else "mercure-local"
        self.title = f"Mercure ({'Bolt' if self._has_bolt else 'local transport'})"
        self.stores = "the event, in Bolt with fdatasync: survives a power cut" if self._has_bolt else NOTHING

    def prepare(self) -> None:
        self._binary()

    @staticmethod
    def _binary() -> str:
        return build.program("mercure", BINARY) if BINARY in os.environ else str(build.go_program(SOURCE))

    def version(self) -> str:
        if BINARY in os.environ:
            return subprocess.run([self._binary(), "version"], capture_output=True, text=True).stdout.strip()
        required = (SOURCE / "go.mod").read_text().partition("github.com/dunglas/mercure v")[2].split()[0]
        return f"Mercure {required} as a library in net/http, Go {build.go().version}"

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        database = folder / "mercure.db"
        if BINARY not in os.environ:
            argv = [self._binary(), "-address", f"127.0.0.1:{port}", "-key", KEY]
            return [Command([*argv, "-bolt", str(database)] if self._has_bolt else argv)]
        transport = f"bolt {{\n path {database}\n }}" if self._has_bolt else "local"
        path = folder / "Caddyfile"
        path.write_text(CADDYFILE.format(port=port, key=KEY, transport=transport))
        argv = [self._binary(), "run", "--config", str(path), "--adapter", "caddyfile"]
        return [Command(argv, {"HOME": str(folder)}, folder)]
