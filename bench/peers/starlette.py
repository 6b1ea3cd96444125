"""sse-starlette under uvicorn with uvloop and httptools, in a virtual environment of its own."""

from __future__ import annotations

from pathlib import Path

from bench import build
from bench.peers.base import NOTHING, Command, Peer

SOURCE = build.BENCH / "peers" / "starlette_app"
REQUIREMENTS = SOURCE / "requirements.txt"


class Starlette(Peer):
    """An EventSourceResponse and an asyncio queue per stream."""

    name = "sse-starlette"
    title = "sse-starlette + uvicorn"
    stores = NOTHING

    def prepare(self) -> None:
        build.python_venv("starlette", REQUIREMENTS)

    def version(self) -> str:
        pins = dict(line.split("==") for line in REQUIREMENTS.read_text().split() if "==" in line)
        names = ("sse-starlette", "uvicorn", "uvloop")
        return ", ".join(f"{name} {pins[name]}" for name in names)

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        python = build.python_venv("starlette", REQUIREMENTS)
        argv = [str(python), "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--backlog", "4096"]
        argv += ["--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75"]
        return [Command([*argv, "--timeout-graceful-shutdown", "1", "app:app"], {}, SOURCE)]
