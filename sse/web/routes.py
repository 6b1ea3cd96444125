"""The Flask routes around :mod:`sse.web.publishing` and :mod:`sse.web.streaming`."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..auth.cors import cors_headers
from ..auth.decision import AccessDenied
from ..log import ChannelClosed, IdempotencyConflict, LogRefused, LogUnavailable
from ..observe.environ import RAISED
from ..observe.request_id import HEADER
from . import publishing, streaming
from .answers import common_headers, refusal
from .problems import Problem
from .service import Service
from .view_streams import STREAM_HEADERS

# Not "sse", because an app may also have flask-sse, whose blueprint has that name.
blueprint = Blueprint("headwater", __name__)


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
    """Stream one channel."""
    _begin()
    return Response(streaming.open_stream(_service(), request, (channel,)), headers=STREAM_HEADERS)


@blueprint.get("/events", provide_automatic_options=False)
def stream_many() -> Response:
    """Stream several channels, in id order across them."""
    _begin()
    channels = tuple(request.args.getlist("channel"))
    return Response(streaming.open_stream(_service(), request, channels), headers=STREAM_HEADERS)


@blueprint.route("/events", methods=["OPTIONS"])
@blueprint.route("/events/<channel>", methods=["OPTIONS"])
def options(channel: str | None = None) -> Response:
    """Answer preflights (Fetch §3.2.2) and plain OPTIONS."""
    response = Response(status=204)
    response.headers["Allow"] = "GET, HEAD, OPTIONS, POST"
    response.headers.update(cors_headers(_service().settings, request.headers.get("Origin"), preflight=True))
    return response


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
@blueprint.errorhandler(HTTPException)
def _on_error(error: Exception) -> AnyResponse:
    response = refusal(_service(), error)
    assert response is not None
    return response
