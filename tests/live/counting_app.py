"""The service over a log that counts reads: ``/reads`` returns the count of the worker that answers."""

from __future__ import annotations

import os
from typing import Any

import flask

from app import create_app
from settings import load
from sse.web import service
from tests.sse.worker_parts import TroubledLog

_open_log = vars(service)["open_log"]
logs: list[TroubledLog] = []


def _counting(*args: Any, **more: Any) -> TroubledLog:
    logs.append(TroubledLog(_open_log(*args, **more)))
    return logs[-1]


vars(service)["open_log"] = _counting
app = create_app(load())


@app.get("/reads")
def reads() -> flask.Response:
    """Return the number of reads for streams since the start, and the process id."""
    return flask.jsonify(reads=sum(log.reads for log in logs), pid=os.getpid())
