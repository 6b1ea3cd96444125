"""The Flask routes: each view calls a function of the module that does the work."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..auth.cors import cors_headers
from ..auth.decision import AccessDenied
from ..log import ChannelClosed, IdempotencyConflict, LogRefused, LogUnavailable
from ..observe.environ import RAISED
from ..observe.request_id import HEADER
from . import channels, history, manage, publishing, runs, streaming
from .answers import NoContent, common_headers, refusal
from .places import PlacedBlueprint
from .problems import Problem
from .query import prefers_json
from .service import Service
from .view_streams import STREAM_HEADERS

# Not "sse", because an app may also have flask-sse, whose blueprint has that name.
blueprint = PlacedBlueprint("headwater", __name__)


def _service() -> Service:
    extension: Service = current_app.extensions["sse"]
    return extension


def _begin() -> None:
    """Raise the fast path's error again, and refuse paths that begin with two slashes.

    Werkzeug routes ``//events/a`` and ``/%2fevents/a`` as ``/events/a`` (threat: a proxy's rules for ``/events`` do not
    match these). Raises Problem (404).
    """
    if RAISED in request.environ:
        raise request.environ.pop(RAISED)  # not by a variable, which would make a reference cycle with the traceback
    if request.environ["PATH_INFO"].startswith("//"):
        raise Problem(404, "the path begins with more than one slash")


@blueprint.post("/events/<channel>", provide_automatic_options=False)
def publish_one(channel: str) -> Response:
    """Append the body, verbatim, to a channel. Answers 201 once the log holds it."""
    _begin()
    return Response(publishing.publish_event(_service(), request, channel), 201, mimetype="application/json")


@blueprint.post("/events", provide_automatic_options=False)
def publish_batch() -> Response:
    """Append a batch (NDJSON) in order, all or nothing."""
    _begin()
    return Response(publishing.publish_batch(_service(), request), 201, mimetype="application/json")


@blueprint.get("/events/<channel>", provide_automatic_options=False)
def stream_one(channel: str) -> Response:
    """Stream one channel, or send a page of its history as JSON."""
    _begin()
    return _read((channel,))


@blueprint.get("/events", provide_automatic_options=False)
def stream_many() -> Response:
    """Stream several channels, in id order across them, or send a page of their history as JSON."""
    _begin()
    return _read(tuple(request.args.getlist("channel")))


def _read(names: tuple[str, ...]) -> Response:
    if prefers_json(request.environ.get("HTTP_ACCEPT")):
        return _json(history.read_history(_service(), request, names))
    return Response(streaming.open_stream(_service(), request, names), headers=STREAM_HEADERS)


@blueprint.delete("/events/<channel>", provide_automatic_options=False)
def erase_one(channel: str) -> Response:
    """Erase a channel, and open it again if it was closed. Answers 200 once the log has let go of its events."""
    _begin()
    return _json(manage.erase_channel(_service(), request, channel))


@blueprint.get("/channels", provide_automatic_options=False)
def list_channels() -> Response:
    """List the channels that have events or are closed."""
    _begin()
    return _json(channels.list_channels(_service(), request))


@blueprint.delete("/streams", provide_automatic_options=False)
def end_streams() -> Response:
    """End the streams of a subject, a channel or a request, on every worker. Answers 202: they read it in the log."""
    _begin()
    return _json(manage.end_streams(_service(), request), 202)


@blueprint.get("/runs", provide_automatic_options=False)
def list_runs() -> Response:
    """List the runs of a channel."""
    _begin()
    return _json(runs.list_runs(_service(), request))


@blueprint.get("/runs/<run>", provide_automatic_options=False)
def show_run(run: str) -> Response:
    """Tell what is known of a run."""
    _begin()
    return _json(runs.show_run(_service(), request, run))


@blueprint.post("/runs/<run>/stop", provide_automatic_options=False)
def stop_run(run: str) -> Response:
    """Stop a run. Answers 202 if it goes on now, as its worker reads this in the log; 200 if it had ended."""
    _begin()
    text, went_on = runs.stop_run(_service(), request, run)
    return _json(text, 202 if went_on else 200)


def _json(text: str | bytes, status: int = 200) -> Response:
    return Response(text, status, {"Cache-Control": "no-store"}, mimetype="application/json")


_ALLOW: Final = {
    "/events": "GET, HEAD, OPTIONS, POST",
    "/events/<channel>": "DELETE, GET, HEAD, OPTIONS, POST",
    "/channels": "GET, HEAD, OPTIONS",
    "/streams": "DELETE, OPTIONS",
    "/runs": "GET, HEAD, OPTIONS",
    "/runs/<run>": "GET, HEAD, OPTIONS",
    "/runs/<run>/stop": "OPTIONS, POST",
}


def options(allow: str, **values: str) -> Response:
    """Answer preflights (Fetch §3.2.2) and plain OPTIONS."""
    response = Response(status=204)
    response.headers["Allow"] = allow
    response.headers.update(cors_headers(_service().settings, request.headers.get("Origin"), preflight=True))
    return response


for _number, (_rule, _methods) in enumerate(_ALLOW.items()):
    blueprint.add_url_rule(_rule, f"options_{_number}", partial(options, _methods), methods=["OPTIONS"])


@blueprint.after_request
def add_common_headers(response: Response) -> Response:
    headers = common_headers(_service(), request.environ)
    if request.method == "OPTIONS":
        headers = {name: value for name, value in headers.items() if name == HEADER}
    response.headers.update(headers)
    return response


@blueprint.errorhandler(Problem)
@blueprint.errorhandler(AccessDenied)
@blueprint.errorhandler(LogUnavailable)
@blueprint.errorhandler(LogRefused)
@blueprint.errorhandler(IdempotencyConflict)
@blueprint.errorhandler(ChannelClosed)
@blueprint.errorhandler(NoContent)
@blueprint.errorhandler(HTTPException)
def _on_error(error: Exception) -> AnyResponse:
    response = refusal(_service(), error)
    assert response is not None
    return response
