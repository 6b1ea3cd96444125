"""Observes a server from outside: its metrics, its access log, its processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.support.server import Server
from tests.support.wait import eventually

#: For ``Server(command=…)``: an app with views of its own, see tests/live/response_app.py.
RESPONSE_APP = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.live.response_app:app")

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def samples(server: Server) -> dict[str, float]:
    """Return all of ``/metrics``: ``name`` or ``name{label="value"}`` to value."""
    text = server.request("GET", "/metrics", port=server.health_port).text
    found = {}
    for line in text.splitlines():
        if match := _SAMPLE.match(line):
            name, labels, value = match.groups()
            found[f"{name}{{{labels}}}" if labels else name] = float(value)
    return found


def streams(server: Server, state: str | None = None) -> int:
    """Return the number of open streams, in one state or in all."""
    return int(
        sum(
            value
            for name, value in samples(server).items()
            if name.startswith("sse_streams{") and (state is None or f'state="{state}"' in name)
        )
    )


def closed(server: Server) -> dict[str, int]:
    """Return ``sse_streams_closed_total`` by reason, without zeros."""
    prefix = 'sse_streams_closed_total{reason="'
    return {
        name[len(prefix) : -2]: int(value)
        for name, value in samples(server).items()
        if name.startswith(prefix) and value
    }


def access_log(server: Server) -> list[dict[str, str]]:
    """Return the access log's lines as mappings, with ``kind`` for their message. The server must log as JSON."""
    return [access_fields(line) for line in json_lines(server, "headwater.access")]


def json_lines(server: Server, logger: str) -> list[dict[str, Any]]:
    """Return the lines of one logger. The server must log as JSON."""
    whole = server.log_text().rpartition("\n")[0]  # the last line may be on its way
    lines = [json.loads(text) for text in whole.splitlines() if text.startswith("{")]
    return [line for line in lines if line["logger"] == logger]


def access_fields(line: dict[str, Any]) -> dict[str, str]:
    """Return a JSON line's own fields, in the form of :func:`fields`."""
    common = ("time", "level", "logger", "message")
    return {"kind": line["message"], **{name: str(value) for name, value in line.items() if name not in common}}


def fields(message: str) -> dict[str, str]:
    """Return the fields of a line of text; quoted values are JSON strings."""
    kind, _, rest = message.partition(" ")
    found = {"kind": kind}
    while rest:
        name, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].removeprefix(" ")
        else:
            value, _, rest = rest.partition(" ")
        found[name] = value
    return found


def stream_lines(server: Server) -> list[dict[str, str]]:
    """Return the access log's lines about streams."""
    return [line for line in access_log(server) if line["kind"] == "stream"]


def resident_bytes(pid: int) -> int:
    """Return the size of a process's resident set."""
    for line in Path("/proc", str(pid), "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmRSS")


def descriptors(pid: int, *, without: str) -> int:
    """Count a process's file descriptors, except those of files whose names contain ``without``."""
    count = 0
    for path in Path("/proc", str(pid), "fd").iterdir():
        with contextlib.suppress(OSError):  # the one that reads the directory
            count += without not in os.readlink(path)
    return count


def sockets(server: Server) -> dict[int, int]:
    """Count each worker's sockets, once the pod is ready and the counts are stable."""
    seen: list[dict[int, int]] = [{}]

    def settled() -> dict[int, int] | None:
        if len(seen) == 1 and server.request("GET", "/readyz", port=server.health_port).status != 200:
            return None  # not all canaries are out
        seen.append({pid: _sockets(pid) for pid in server.worker_pids()})
        return seen[-1] if seen[-1] == seen[-2] else None

    return eventually(settled, 8, lambda: f"{seen}", interval=0.15) or {}


def _sockets(pid: int) -> int:
    count = 0
    for path in Path("/proc", str(pid), "fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(path).startswith("socket:")
    return count
