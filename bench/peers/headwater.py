"""Headwater itself, as `make run` starts it: gunicorn with its own configuration file and worker class."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer, Target, free_port
from bench.peers.redis_server import redis_command

ROOT = build.BENCH.parent
MAX_STREAMS = 20_000
DRAIN_WINDOW = 1  # seconds; the benchmark stops servers with open streams

# By log, with its defaults; and SQLite's with ?sync=full.
STORES = {
    "sqlite": "the event, in SQLite's write-ahead log: survives the process, not a power cut",
    "sync": "the event, in SQLite's write-ahead log with fsync: survives a power cut",
    "redis": "the event, in Redis's memory (its append-only file is off here)",
    "memory": "the event, in the process's memory",
}


class Headwater(Peer):
    """One worker on one core; variants differ in log engine and number of workers."""

    resumes = True
    ready_path = "/startupz"
    batch_target = Target(
        publish_path="/events",
        body='{"channel":"{channel}","data":{data}}',
        content_type="application/x-ndjson",
    )

    def __init__(self, log: str = "sqlite", workers: int = 1, *, syncs: bool = False) -> None:
        self._log, self._workers, self._syncs = log, workers, syncs
        variant = [log] if log != "sqlite" else []
        variant += ["two-workers"] if workers == 2 else []
        variant += ["sync"] if syncs else []
        self.name = "-".join(["headwater", *variant])
        engine = {"sqlite": "SQLite", "memory": "memory", "redis": "Redis"}[log]
        self.stores = STORES["sync" if syncs else log]
        self.only_in = "publish" if syncs else ""
        self.is_durable = log == "sqlite"
        more = f"{', 2 workers, both cores' if workers == 2 else ''}{', `?sync=full`' if syncs else ''}"
        self.title = f"Headwater ({engine}{more})"
        if workers == 2:
            self.cpus = (0, 1)  # two workers, two cores: here the load generator has no core of its own

    def prepare(self) -> None:
        if not (ROOT / "wsgi.py").exists():
            raise build.Unavailable("wsgi.py is missing")
        if self._log == "redis":
            build.program("redis-server")

    def version(self) -> str:
        from importlib.metadata import version

        packages = ", ".join(f"{name} {version(name)}" for name in ("gunicorn", "gevent", "Flask"))
        return f"{_commit()}Python {sys.version.split()[0]}, {packages}"

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        helpers = []
        option = "?sync=full" if self._syncs else ""
        url = {"sqlite": f"sqlite:///{folder}/log.db{option}", "memory": "memory:"}.get(self._log)
        if url is None:
            redis_port = free_port()
            helpers = [redis_command(redis_port, folder)]
            url = f"redis://127.0.0.1:{redis_port}/0"
        env = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "HEALTH_PORT": str(free_port()),
            "WEB_CONCURRENCY": str(self._workers),
            "SSE_LOG": url,
            "SSE_MAX_STREAMS": str(MAX_STREAMS),
            "SSE_DRAIN_DELAY": "0",
            "SSE_DRAIN_WINDOW": str(DRAIN_WINDOW),
            "LOG_LEVEL": "warning",  # no peer writes an access log
        }
        argv = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
        return [*helpers, Command(argv, env, ROOT)]


def _commit() -> str:
    """Return the source's commit; nothing outside a git checkout."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"commit {said.stdout.strip()}, "
