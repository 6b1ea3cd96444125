"""The routes, as Flask has them; what they do is in :mod:`sse.web.streaming`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from ..auth import AccessDenied, cors_headers
from ..log import IdempotencyConflict, LogUnavailable
from ..observe.request_id import HEADER
from . import streaming as endpoints
from .problems import Problem
from .view_streams import STREAM_HEADERS

if TYPE_CHECKING:
    from ..extension import SSE

# Not "sse": an app may have flask-sse's blueprint beside ours, and names are taken once.
blueprint = Blueprint("headwater", __name__)

# What the fast path could not answer (:mod:`sse.web.fast_path`): the environ's member with the error for the view
# to raise.
RAISED: Final = "sse.raised"


def _sse() -> SSE:
    extension: SSE = current_app.extensions["sse"]
    return extension


def _begin() -> None:
    """Raise what the fast path did.

    Refuse ``//events/a`` and ``/%2fevents/a``, which Werkzeug takes for ``/events/a`` (threat: a proxy's rules for
    the paths of ``/events`` do not see these). Raises Problem (404)."""
    if RAISED in request.environ:
        raise request.environ.pop(RAISED)  # no variable: it would be in a cycle with its traceback
    if request.environ["PATH_INFO"].startswith("//"):
        raise Problem(404, "the path begins with more than one slash")


@blueprint.post("/events/<channel>", provide_automatic_options=False)
def publish_one(channel: str) -> Response:
    """Append the body, verbatim, to a channel: 201 once the log holds it."""
    _begin()
    return Response(endpoints.publish_event(_sse(), request, channel), 201, mimetype="application/json")


@blueprint.post("/events", provide_automatic_options=False)
def publish_batch() -> Response:
    """Append a batch (NDJSON), all or nothing and in order."""
    _begin()
    return Response(endpoints.publish_batch(_sse(), request), 201, mimetype="application/json")


@blueprint.get("/events/<channel>", provide_automatic_options=False)
def stream_one(channel: str) -> Response:
    """Stream one channel."""
    _begin()
    return Response(endpoints.open_stream(_sse(), request, (channel,)), headers=STREAM_HEADERS)


@blueprint.get("/events", provide_automatic_options=False)
def stream_many() -> Response:
    """Stream several channels, in id order across them."""
    _begin()
    channels = tuple(request.args.getlist("channel"))
    return Response(endpoints.open_stream(_sse(), request, channels), headers=STREAM_HEADERS)


@blueprint.route("/events", methods=["OPTIONS"])
@blueprint.route("/events/<channel>", methods=["OPTIONS"])
def options(channel: str | None = None) -> Response:
    """Preflight (Fetch §3.2.2) and plain OPTIONS."""
    response = Response(status=204)
    response.headers["Allow"] = "GET, HEAD, OPTIONS, POST"
    response.headers.update(cors_headers(_sse().settings, request.headers.get("Origin"), preflight=True))
    return response


@blueprint.after_request
def add_common_headers(response: Response) -> Response:
    headers = endpoints.common_headers(_sse(), request.environ)
    if request.method == "OPTIONS":
        headers = {name: value for name, value in headers.items() if name == HEADER}
    response.headers.update(headers)
    return response


@blueprint.errorhandler(Problem)
@blueprint.errorhandler(AccessDenied)
@blueprint.errorhandler(LogUnavailable)
@blueprint.errorhandler(IdempotencyConflict)
@blueprint.errorhandler(HTTPException)
def _on_error(error: Exception) -> AnyResponse:
    response = endpoints.refusal(_sse(), error)
    assert response is not None
    return response
