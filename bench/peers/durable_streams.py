"""The reference server of the Durable Streams protocol (npm: @durable-streams/server), with its file-backed store.

Written from its documentation and source: `file-store.ts` answers an append when the event was written to the stream's
file and fdatasync has returned, and its offset was committed in LMDB. Appends to one stream take turns. A stream must
be created with PUT; an event arrives as `event: data`, and after it `event: control` with the next offset. That offset
is the cursor. A client sends it in the URL, not as Last-Event-ID, so the storm is not measured.
"""

from __future__ import annotations

import http.client
import json
import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer, PeerFailed, Target

SOURCE = build.BENCH / "peers" / "durable_streams_app"
CONTENT_TYPE = "text/plain"


class DurableStreams(Peer):
    """Live mode `sse`, from the stream's end."""

    name = "durable-streams"
    title = "Durable Streams (Node, file store)"
    stores = "the event, in a file with fdatasync: survives a power cut"
    is_durable = True
    creates_channels = True
    ready_path = "/healthz"  # a stream that server.mjs creates
    target = Target(path="/{channel}?offset=now&live=sse", publish_path="/{channel}", content_type=CONTENT_TYPE)

    def prepare(self) -> None:
        build.npm_folder(SOURCE)

    def version(self) -> str:
        node = subprocess.run([build.program("node"), "--version"], capture_output=True, text=True).stdout
        package = build.npm_folder(SOURCE) / "node_modules/@durable-streams/server/package.json"
        return f"Node {node.strip()}, @durable-streams/server {json.loads(package.read_text())['version']}"

    def create_channel(self, port: int, channel: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("PUT", f"/{channel}", headers={"Content-Type": CONTENT_TYPE})
            status = connection.getresponse().status
            if status not in (200, 201):
                raise PeerFailed(f"PUT /{channel} was answered with {status}")
        finally:
            connection.close()

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        env = {"PORT": str(port), "DATA_DIR": str(folder / "data"), "NODE_ENV": "production"}
        return [Command([build.program("node"), "server.mjs"], env, build.npm_folder(SOURCE))]
