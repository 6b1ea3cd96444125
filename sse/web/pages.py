"""The service's own pages: the console and the API's description. An app that only uses the extension has neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, current_app, json, request, send_from_directory

from ..auth.decision import AccessDenied
from ..auth.hook import Action
from .access import allowed
from .openapi import describe
from .problems import Problem
from .query import check_query, checked_channels
from .service import Service

blueprint = Blueprint("pages", __name__)

_FILES: Final = Path(__file__).parent / "console"

# Threats: event data that runs as a script in the console; another site that frames the page to steal clicks. Nothing
# inline runs, nothing loads from elsewhere, and no text becomes HTML (trusted types).
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@blueprint.get("/")
def console() -> Response:
    """Send the console, which learns from its page where the events are (SSE_URL_PREFIX)."""
    prefix = current_app.extensions["sse"].settings.sse_url_prefix
    page = (_FILES / "index.html").read_text().replace('content="./events"', f'content=".{prefix}"')
    response = Response(page, mimetype="text/html")
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/console/<path:name>")
def console_file(name: str) -> Response:
    """Send a file of the console."""
    return send_from_directory(_FILES, name)


@blueprint.get("/console/rights")
def rights() -> Response:
    """Tell what this request's sender may do with the names and patterns of ``?channel=``, or what is missing.

    It says no more than trying would. Not part of the API: for the console, which cannot try to erase.
    """
    service: Service = current_app.extensions["sse"]
    channels = request.args.getlist("channel")
    check_query(request)
    checked_channels(channels, service.settings.sse_max_channels)
    actions: tuple[Action, ...] = ("subscribe", "publish", "manage")
    told = {action: _right(service, action, channels) for action in actions}
    return Response(json.dumps(told), mimetype="application/json")


def _right(service: Service, action: Action, channels: list[str]) -> dict[str, Any]:
    """Return whether it is allowed: who is known by what (``as``, ``until`` in Unix seconds), or ``missing``."""
    try:
        grant = allowed(service, request, action, channels)
    except AccessDenied as refusal:
        return {"allowed": False, "missing": refusal.detail}
    return {"allowed": True, "as": grant.subject, "until": grant.expires_at}


@blueprint.errorhandler(Problem)
def _on_problem(problem: Problem) -> Response:
    return problem.response()


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Send the API's description, with this service's limits."""
    text = json.dumps(describe(current_app.extensions["sse"].settings))
    return Response(text, mimetype="application/json")


@blueprint.after_request
def _secure(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    return response
