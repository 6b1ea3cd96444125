"""The service's own pages: the console and the API description. An app that uses only the extension has neither."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask import Blueprint, Response, current_app, json, send_from_directory

from .openapi import describe

blueprint = Blueprint("pages", __name__)

_FILES: Final = Path(__file__).parent / "console"

# Threat: event data that runs as a script in the console. Nothing inline runs, nothing foreign loads, no text becomes
# HTML (trusted types), and no other site can frame the page to steal clicks.
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
    """The console."""
    return send_from_directory(_FILES, "index.html")


@blueprint.get("/console/<path:name>")
def console_file(name: str) -> Response:
    """A file of the console's page."""
    return send_from_directory(_FILES, name)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The API's description, with this service's limits."""
    text = json.dumps(describe(current_app.extensions["sse"].settings))
    return Response(text, mimetype="application/json")


@blueprint.after_request
def _secure(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    return response
