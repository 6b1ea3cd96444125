"""Mercure, the SSE hub on Caddy; its binary's path comes from MERCURE_BIN.

Written from its documentation (mercure.rocks: "Configuration"); Bolt is its default transport.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer, Target

KEY = "!ChangeThisMercureHubJWTSecretKey!"

CONFIGURATION = """
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
        transport bolt {{
            path {folder}/mercure.db
        }}
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

    name = "mercure"
    title = "Mercure"
    resumes = True
    target = Target(
        path="/.well-known/mercure?topic={channel}",
        publish_path="/.well-known/mercure",
        body="topic={channel}&data={data:url}",
        content_type="application/x-www-form-urlencoded",
        publish_headers=(f"Authorization: Bearer {publisher_token()}",),
    )

    def prepare(self) -> None:
        build.program("mercure", "MERCURE_BIN")

    def version(self) -> str:
        binary = build.program("mercure", "MERCURE_BIN")
        return subprocess.run([binary, "version"], capture_output=True, text=True).stdout.strip()

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        path = folder / "Caddyfile"
        path.write_text(CONFIGURATION.format(port=port, key=KEY, folder=folder))
        argv = [
            build.program("mercure", "MERCURE_BIN"),
            "run",
            "--config",
            str(path),
            "--adapter",
            "caddyfile",
        ]
        return [Command(argv, {"HOME": str(folder)}, folder)]
