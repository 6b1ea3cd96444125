"""Flask-SSE with Redis pub/sub under gunicorn's gevent worker, as its quickstart says."""

from __future__ import annotations

from pathlib import Path

from bench import build
from bench.peers.base import NOTHING, Command, Peer, Target, free_port
from bench.peers.redis_server import redis_command

SOURCE = build.BENCH / "peers" / "flask_sse_app"
REQUIREMENTS = SOURCE / "requirements.txt"


class FlaskSSE(Peer):
    """One Redis connection per stream; no response head before the first event, no ids, no heartbeats."""

    name = "flask-sse"
    title = "Flask-SSE + Redis"
    stores = NOTHING
    most_streams = 2000  # Redis connections; it takes minutes until all are subscribed
    target = Target(
        path="/stream?channel={channel}",
        publish_path="/publish/{channel}",
        lazy_head=True,
        settle=2,
        settle_each=0.006,  # each stream's greenlet connects to Redis and subscribes
    )

    def prepare(self) -> None:
        build.program("redis-server")
        build.python_venv("flask-sse", REQUIREMENTS)

    def version(self) -> str:
        pins = dict(line.split("==") for line in REQUIREMENTS.read_text().split() if "==" in line)
        return ", ".join(f"{name} {pins[name]}" for name in ("Flask-SSE", "gunicorn", "gevent", "redis"))

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        redis_port = free_port()
        python = build.python_venv("flask-sse", REQUIREMENTS)
        argv = [str(python), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
        argv += ["--worker-class", "gevent", "--worker-connections", str(streams + 1000)]
        argv += ["--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket", "app:app"]
        env = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
        return [redis_command(redis_port, folder), Command(argv, env, SOURCE)]
