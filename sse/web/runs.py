"""Runs for an app's views (``sse.run``), and over HTTP."""

from __future__ import annotations

import json
from typing import Any

import flask
from werkzeug.wrappers import Request

from ..runs.book import Info, channel_of
from ..runs.states import RunActive, RunsFull, State
from .access import allowed
from .answers import NoContent, check_log
from .problems import Problem
from .query import check_query, checked_channel, single_value
from .service import Service
from .streaming import open_from
from .view_streams import STREAM_HEADERS


class RunHandle:
    """A run, as ``sse.run(…)`` returns it: new, or the one that its key had already.

    id, channel: the run's; a reader needs the channel, and a stop button the id.
    """

    def __init__(self, service: Service, info: Info) -> None:
        self._service = service
        self._info = info
        self.id = info.run
        self.channel = info.channel

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    def info(self) -> dict[str, Any]:
        """Return what ``GET /runs/<id>`` answers now. Raises LogUnavailable."""
        return (self._service.runs.find(self.id) or self._info).public()

    @property
    def state(self) -> State:
        """Its state now. Raises LogUnavailable."""
        return State(self.info()["state"])

    def response(self, *, plain: bool = False) -> flask.Response:
        """Answer the current request with the run's stream, from its first item on, or where the client resumes it.

        Any other request can have the same stream from ``GET /events/<channel>``. The run does not end with its
        readers. plain: only what the run yields, for clients that take every block for their own.
        """
        try:
            body = open_from(self._service, flask.request, self.channel, self._info.after, plain=plain)
        except NoContent:
            return flask.Response(status=204)  # the client has seen its end
        return flask.Response(body, headers=STREAM_HEADERS)

    def stop(self) -> None:
        """Stop the run, wherever it is: its iterable is closed within a second. Raises LogUnavailable."""
        self._service.runs.stop(self.id)


def list_runs(service: Service, request: Request) -> str:
    """Return the answer of ``GET /runs?channel=``: the newest first.

    Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    check_log(service, request)
    check_query(request)
    channel = checked_channel(single_value(request, "channel") or "")
    allowed(service, request, "subscribe", (channel,))
    return _json({"runs": [info.public() for info in service.runs.of_channel(channel)]})


def show_run(service: Service, request: Request, run: str) -> str:
    """Return the answer of ``GET /runs/<id>``. Raises the errors that :func:`sse.web.answers.refusal` knows."""
    check_log(service, request)
    allowed(service, request, "subscribe", (_channel(run),))
    return _json(_known(service.runs.find(run)).public())


def stop_run(service: Service, request: Request, run: str) -> tuple[str, bool]:
    """Stop a run; return the answer, what was known of it before, and whether it went on then.

    Raises the errors that :func:`sse.web.answers.refusal` knows.
    """
    check_log(service, request)
    allowed(service, request, "publish", (_channel(run),))
    info = _known(service.runs.stop(run))
    return _json(info.public()), info.is_open


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _channel(run: str) -> str:
    """Return a run's channel, by which rights are decided before anything is told of it. Raises Problem (404)."""
    channel = channel_of(run)
    if channel is None:
        raise Problem(404, "there is no such run")
    return channel


def _known(info: Info | None) -> Info:
    if info is None:
        raise Problem(404, "there is no such run, or it ended more than a day ago")
    return info


def refused(error: RunActive | RunsFull) -> flask.Response:
    """Answer a view that did not catch one of these itself."""
    if isinstance(error, RunActive):
        return Problem(409, str(error), title="the channel has a run", run=error.run).response()
    return Problem(503, str(error), headers={"Retry-After": str(max(1, round(error.retry_after)))}).response()
