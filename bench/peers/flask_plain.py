"""The Flask app that most people write: a generator and a queue per client, stock gunicorn workers."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from bench import build
from bench.peers.base import NOTHING, Command, Peer

SOURCE = build.BENCH / "peers" / "plain"


def _room(streams: int) -> int:
    """Return how many connections the worker must hold.

    More than the streams: a connection whose client has left keeps its place until the next write to it fails.
    """
    return 3 * streams + 1000


class PlainGevent(Peer):
    """Stock gevent worker."""

    name = "flask-gevent"
    title = "Flask generator, stock gevent worker"
    stores = NOTHING

    def version(self) -> str:
        return f"gunicorn {version('gunicorn')}, gevent {version('gevent')}, Flask {version('Flask')}"

    def options(self, streams: int) -> list[str]:
        """Return gunicorn's options."""
        return ["--worker-class", "gevent", "--worker-connections", str(_room(streams))]

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
        argv += ["--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"]
        return [Command([*argv, *self.options(streams), "app:app"], {}, SOURCE)]


class PlainGthread(PlainGevent):
    """Stock gthread worker: one thread per stream."""

    name = "flask-gthread"
    title = "Flask generator, stock gthread worker"
    most_streams = 2000  # threads

    def version(self) -> str:
        return f"gunicorn {version('gunicorn')}, Flask {version('Flask')}"

    def options(self, streams: int) -> list[str]:
        return [
            *("--worker-class", "gthread", "--threads", str(2 * streams + 64)),
            *("--worker-connections", str(_room(streams)), "--keep-alive", "75"),
        ]
