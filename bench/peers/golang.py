"""Go net/http, standard library only, with the handler as usually written (`go/main.go`)."""

from __future__ import annotations

from pathlib import Path

from bench import build
from bench.peers.base import NOTHING, Command, Peer

SOURCE = build.BENCH / "peers" / "go"


class Go(Peer):
    """A broker with a buffered channel per subscriber; a subscriber whose buffer is full misses events."""

    name = "go"
    title = "Go net/http"
    stores = NOTHING

    def prepare(self) -> None:
        build.go_program(SOURCE)

    def version(self) -> str:
        return f"Go {build.go().version}"

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        # GOMAXPROCS follows the affinity mask: 1 here
        return [Command([str(build.go_program(SOURCE)), "-port", str(port)])]
