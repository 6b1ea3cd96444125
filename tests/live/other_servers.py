"""The same app under other servers."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import Any

from tests.support.server import Server
from tests.support.wait import eventually

OURS = "our worker"
GEVENT = "stock gevent"
GTHREAD = "gthread"
FLASK = "flask run"
UWSGI = "uWSGI"
OTHERS = (GEVENT, GTHREAD, FLASK, UWSGI)

# Servers that can hold no stream.
SYNC = "sync"
WAITRESS = "waitress"
FLASK_ALONE = "flask run --without-threads"
UWSGI_ALONE = "uWSGI with one thread"
GTHREAD_ALONE = "gthread with one thread"
STARVING = (SYNC, WAITRESS, FLASK_ALONE, UWSGI_ALONE, GTHREAD_ALONE)

STOCK = (sys.executable, "-m", "gunicorn", "-c", "tests/live/stock.conf.py")
_RUN_FLASK = "import os, sys; from flask.cli import main; sys.argv[1:] = [*sys.argv[1:], os.environ['PORT']]; main()"


_BIN = Path(sys.executable).parent
# `$PORT` is known only when the server starts.
_UWSGI = f"exec {_BIN}/uwsgi --http-socket 127.0.0.1:$PORT --master --die-on-term --need-app --module"
_WAITRESS = f"exec {_BIN}/waitress-serve --listen=127.0.0.1:$PORT"


def start(kind: str, app: str = "wsgi:app", *args: str, hooks: bool = True, **env: Any) -> Server:
    """Start ``app`` under this kind of server; the caller closes it. (The examples are for the installed package.)

    args: further arguments for the server. hooks: whether gunicorn's configuration has our hook.
    """
    package = "headwater" if app.startswith("examples.") else "sse"
    name, _, alone = kind.partition(" with ")
    # Only our worker and our hook tell the extension that the server listens on a loopback address.
    open_to_all = {"SSE_AUTH": "none", "FLASK_SSE_AUTH": "none", **env}
    if kind == OURS:
        config = "python:headwater.gunicorn_conf" if package == "headwater" else "gunicorn.conf.py"
        server = Server(*args, command=(sys.executable, "-m", "gunicorn", "-c", config, app), **env)
    elif name.startswith(FLASK):
        command = (sys.executable, "-c", _RUN_FLASK, "--app", app, "run", "--no-reload", *name.split()[2:], *args)
        server = Server(command=(*command, "--port"), **open_to_all)
    elif name == UWSGI:
        threads = () if alone else ("--threads", "4")
        server = Server(command=("sh", "-c", " ".join((_UWSGI, app, *threads, *args))), **open_to_all)
    elif name == WAITRESS:
        server = Server(command=("sh", "-c", " ".join((_WAITRESS, *args, app))), **open_to_all)
    else:
        threads = ("--threads", "1") if alone else ()
        from_package = "headwater.sse.gunicorn" if package == "headwater" else "sse.gunicorn"
        more = {"STOCK_WORKER": name.removeprefix("stock "), "STOCK_HOOKS": from_package if hooks else None}
        server = Server(*threads, *args, command=(*STOCK, app), **more, **(env if hooks else open_to_all))
    try:
        restart(server)
    except BaseException:
        server.close()
        raise
    return server


def restart(server: Server) -> None:
    """Start a server that does not run."""
    server.start(ready=False)
    eventually(lambda: _answers(server), 20, lambda: f"it does not answer:\n{server.log_tail()}")


def _answers(server: Server) -> bool:
    """Return whether the server answers at all: not every app has the probes."""
    assert server.process.poll() is None, f"it ended:\n{server.log_tail()}"
    try:
        path = "/startupz"
        return server.request("GET", path, timeout=2).status in (200, 404)
    except (OSError, http.client.HTTPException):
        return False
