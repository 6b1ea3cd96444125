"""better-sse, the usual package for Node, on Node's own http server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import NOTHING, Command, Peer

SOURCE = build.BENCH / "peers" / "better_sse_app"


class BetterSSE(Peer):
    """One session per stream, and a channel's `broadcast`."""

    name = "better-sse"
    title = "better-sse (Node)"
    stores = NOTHING

    def prepare(self) -> None:
        build.npm_folder(SOURCE)

    def version(self) -> str:
        node = subprocess.run([build.program("node"), "--version"], capture_output=True, text=True).stdout
        package = json.loads((build.npm_folder(SOURCE) / "node_modules/better-sse/package.json").read_text())
        return f"Node {node.strip()}, better-sse {package['version']}"

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        env = {"PORT": str(port), "NODE_ENV": "production"}
        return [Command([build.program("node"), "server.mjs"], env, build.npm_folder(SOURCE))]
