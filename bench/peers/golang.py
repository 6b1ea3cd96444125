"""Go net/http, standard library only, with the handler as usually written (`go/main.go`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer

SOURCE = build.BENCH / "peers" / "go"


class Go(Peer):
    """A broker with a buffered channel per subscriber; a subscriber whose buffer is full misses events."""

    name = "go"
    title = "Go net/http"

    def prepare(self) -> None:
        build.go_program(SOURCE)

    def version(self) -> str:
        said = subprocess.run([build.program("go"), "version"], capture_output=True, text=True, check=True)
        return said.stdout.split()[2].replace("go", "Go ", 1)

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        # GOMAXPROCS follows the affinity mask: 1 here
        return [Command([str(build.go_program(SOURCE)), "-port", str(port)])]
