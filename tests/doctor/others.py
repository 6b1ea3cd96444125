"""Servers and proxies for the live checks."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.wait import eventually

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ROOT / "tests/doctor/servers"

_HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client {idle}
    timeout server {idle}
listen front
    bind 127.0.0.1:{port}
    server pod 127.0.0.1:{upstream}
"""


@contextlib.contextmanager
def process(command: Sequence[str], folder: Path, port: int, **env: str) -> Iterator[int]:
    """Start it, wait until it listens on ``port``, and yield that."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output").open("wb") as output:
        child = subprocess.Popen(
            command,
            env={**os.environ, "PORT": str(port), **env},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    reaper.watch(child.pid)
    try:
        eventually(lambda: _listens(port), 30.0, lambda: (folder / "output").read_text())
        yield port
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def _reserved() -> Iterator[int]:
    port = ReservedPort()
    try:
        yield port.number
    finally:
        port.release()


@contextlib.contextmanager
def plain_app(folder: Path, **env: str) -> Iterator[int]:
    """Run the lab's plain app: gunicorn, gevent, a queue per client."""
    conf = "tests/failure_modes/plain/gunicorn.conf.py"
    command = [sys.executable, "-m", "gunicorn", "-c", conf, "tests.failure_modes.plain.app:app"]
    with _reserved() as port, process(command, folder / "plain", port, PYTHONPATH=str(ROOT), **env):
        eventually(lambda: _healthy(port), 30.0)  # gunicorn listens before its workers have loaded the app
        yield port


@contextlib.contextmanager
def node_server(folder: Path, **env: str) -> Iterator[int]:
    node = require_program("node", "nodejs")
    with _reserved() as port, process([node, str(SERVERS / "stream.mjs")], folder / "node", port, **env):
        yield port


@contextlib.contextmanager
def go_server(folder: Path, **env: str) -> Iterator[int]:
    go = require_program("go", "golang-go")
    binary = folder / "go-stream"
    built = subprocess.run(
        [go, "build", "-o", str(binary), str(SERVERS / "stream.go")],
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GO111MODULE": "off"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert built.returncode == 0, built.stderr
    with _reserved() as port, process([str(binary)], folder / "go", port, **env):
        yield port


@contextlib.contextmanager
def haproxy(folder: Path, upstream: int, idle: str) -> Iterator[int]:
    """Run HAProxy with one time-out for both sides."""
    program = require_program("haproxy", "haproxy")
    folder = folder / "haproxy"
    folder.mkdir()
    with _reserved() as port:
        config = folder / "haproxy.cfg"
        config.write_text(_HAPROXY.format(idle=idle, port=port, upstream=upstream))
        with process([program, "-db", "-f", str(config)], folder, port):
            yield port


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Run a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
