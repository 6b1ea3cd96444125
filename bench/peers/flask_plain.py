"""The Flask app that most people write: a generator and a queue per client, stock gunicorn workers."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer

SOURCE = build.BENCH / "peers" / "plain"


class PlainGevent(Peer):
    """Stock gevent worker."""

    name = "flask-gevent"
    title = "Flask generator, stock gevent worker"

    def version(self) -> str:
        return f"gunicorn {version('gunicorn')}, gevent {version('gevent')}, Flask {version('Flask')}"

    def options(self, streams: int) -> list[str]:
        """gunicorn's options."""
        return ["--worker-class", "gevent", "--worker-connections", str(streams + 1000)]

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        argv = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
        argv += ["--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"]
        return [Command([*argv, *self.options(streams), "app:app"], {}, SOURCE)]


class PlainGthread(PlainGevent):
    """Stock gthread worker: a thread per stream."""

    name = "flask-gthread"
    title = "Flask generator, stock gthread worker"
    most_streams = 2000  # threads

    def version(self) -> str:
        return f"gunicorn {version('gunicorn')}, Flask {version('Flask')}"

    def options(self, streams: int) -> list[str]:
        return [
            *("--worker-class", "gthread", "--threads", str(streams + 16)),
            *("--worker-connections", str(streams + 1000), "--keep-alive", "75"),
        ]
