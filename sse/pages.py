"""The service's own pages, which an app that only takes the extension does not get: the API's description."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, json

from sse.openapi import describe

blueprint = Blueprint("pages", __name__)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The API's description, with this service's limits."""
    text = json.dumps(describe(current_app.extensions["sse"].settings))
    return Response(text, mimetype="application/json", headers={"Cache-Control": "no-cache"})
