"""A Redis for the peers that need one, without persistence, in a temporary directory."""

from __future__ import annotations

from pathlib import Path

from bench import build
from bench.peers.base import Command


def redis_command(port: int, folder: Path) -> Command:
    """Return the command for a Redis at `port`, on the serving side's core."""
    argv = [build.program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return Command([*argv, "--appendonly", "no", "--maxclients", "20000", "--dir", str(folder)])
