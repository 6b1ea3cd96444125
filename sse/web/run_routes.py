"""The Flask routes around :mod:`sse.web.runs`, on the same blueprint as those of :mod:`sse.web.routes`."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, request

from ..auth.cors import cors_headers
from . import runs
from .answers import check_log
from .routes import _begin as begin
from .routes import _service as current_service
from .routes import blueprint

__all__ = ["blueprint"]


@blueprint.get("/runs/<run>", provide_automatic_options=False)
def show_run(run: str) -> Response:
    """Tell what is known of a run."""
    begin()
    check_log(current_service(), request)
    return _answer(runs.describe(current_service(), request, run))


@blueprint.get("/runs", provide_automatic_options=False)
def list_runs() -> Response:
    """List the runs of a channel."""
    begin()
    check_log(current_service(), request)
    return _answer({"runs": runs.list_runs(current_service(), request)})


@blueprint.post("/runs/<run>/stop", provide_automatic_options=False)
def stop_run(run: str) -> Response:
    """Stop a run. Answers 202 if it is being stopped, 200 if it had ended before."""
    begin()
    check_log(current_service(), request)
    info, went_on = runs.stop(current_service(), request, run)
    return _answer(info, 202 if went_on else 200)


@blueprint.route("/runs", methods=["OPTIONS"])
@blueprint.route("/runs/<run>", methods=["OPTIONS"])
def run_options(run: str | None = None) -> Response:
    """Answer preflights (Fetch §3.2.2) and plain OPTIONS."""
    return _options("GET, HEAD, OPTIONS")


@blueprint.route("/runs/<run>/stop", methods=["OPTIONS"])
def stop_options(run: str) -> Response:
    return _options("OPTIONS, POST")


def _options(allow: str) -> Response:
    response = Response(status=204, headers={"Allow": allow})
    response.headers.update(cors_headers(current_service().settings, request.headers.get("Origin"), preflight=True))
    return response


def _answer(value: Any, status: int = 200) -> Response:
    response = Response(json.dumps(value) + "\n", status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
