"""A gunicorn configuration and an app in one file, for tests/health/test_gunicorn.py.

It has health's hooks, and a service that files in a directory control (``drain-<pid>``, ``mute-<pid>``).
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import flask

from health import Health, hooks
from tests.health.fakes import FakeSource, FakeStatus, heartbeat

worker_class = os.environ["POD_WORKER_CLASS"]
workers = int(os.environ["POD_WORKERS"])
graceful_timeout = 20
control_socket_disable = True

on_starting = hooks.on_starting
on_reload = hooks.on_reload
nworkers_changed = hooks.nworkers_changed
pre_fork = hooks.pre_fork
post_fork = hooks.post_fork
post_worker_init = hooks.post_worker_init
child_exit = hooks.child_exit
on_exit = hooks.on_exit


class Service(FakeSource):
    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory
        self.stats.opened = 100
        threading.Thread(target=self._beat, daemon=True).start()

    def told(self, word: str) -> bool:
        return os.path.exists(f"{self.directory}/{word}-{os.getpid()}")

    def _beat(self) -> None:
        while True:
            if not self.told("mute"):
                self.send(heartbeat())
            time.sleep(0.3)

    def status(self) -> Any:
        return FakeStatus(draining=self.told("drain"))


def make_app() -> flask.Flask:
    app = flask.Flask("pod")
    app.config["HEALTH_CANARY_MAX_AGE"] = 2
    app.extensions["sse"] = Service(os.environ["POD_DIRECTORY"])
    Health(app)

    @app.after_request
    def sign(response: flask.Response) -> flask.Response:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    @app.get("/block/<float:seconds>")
    def block(seconds: float) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "done"

    return app
