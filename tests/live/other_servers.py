"""The same app under other servers."""

from __future__ import annotations

import http.client
import sys
from typing import Any

from tests.support.server import Server
from tests.support.wait import eventually

OURS = "our worker"
GEVENT = "stock gevent"
GTHREAD = "gthread"
FLASK = "flask run"
OTHERS = (GEVENT, GTHREAD, FLASK)

_STOCK = (sys.executable, "-m", "gunicorn", "-c", "tests/live/stock.conf.py")
_RUN_FLASK = "import os, sys; from flask.cli import main; sys.argv[1:] = [*sys.argv[1:], os.environ['PORT']]; main()"


def start(kind: str, app: str = "wsgi:app", **env: Any) -> Server:
    """Start ``app`` under this kind of server; the caller closes it. (The examples are for the installed package.)"""
    package = "headwater" if app.startswith("examples.") else "sse"
    if kind == OURS:
        config = "python:headwater.gunicorn_conf" if package == "headwater" else "gunicorn.conf.py"
        server = Server(command=(sys.executable, "-m", "gunicorn", "-c", config, app), **env)
    elif kind == FLASK:
        # Nobody tells the extension that this server listens on a loopback address only.
        command = (sys.executable, "-c", _RUN_FLASK, "--app", app, "run", "--no-reload", "--port")
        server = Server(command=command, **{"SSE_AUTH": "none", "FLASK_SSE_AUTH": "none", **env})
    else:
        hooks = "headwater.sse.gunicorn" if package == "headwater" else "sse.gunicorn"
        server = Server(command=(*_STOCK, app), STOCK_WORKER=kind.removeprefix("stock "), STOCK_HOOKS=hooks, **env)
    try:
        server.start(ready=False)
        eventually(lambda: _answers(server), 20, lambda: f"{kind} does not answer:\n{server.log_tail()}")
    except BaseException:
        server.close()
        raise
    return server


def _answers(server: Server) -> bool:
    """Return whether the server answers at all: not every app has the probes."""
    assert server.process.poll() is None, f"it ended:\n{server.log_tail()}"
    try:
        path = "/startupz"
        return server.request("GET", path, timeout=2).status in (200, 404)
    except (OSError, http.client.HTTPException):
        return False
