"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flask import Response
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES


class Problem(Exception):
    """A refusal that becomes the answer.

    status: the HTTP status; detail: one sentence that names the field and the limit; title: the status's own by
    default; headers: such as Retry-After; extra: further members of the problem object (RFC 9457 §3.2).
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title or HTTP_STATUS_CODES.get(status, "Error")
        self.headers = dict(headers or {})
        self.extra = extra

    def response(self) -> Response:
        """Make the answer. It is never cached."""
        body = {"title": self.title, "status": self.status, "detail": self.detail, **self.extra}
        response = Response(
            json.dumps(body) + "\n", self.status, self.headers, mimetype="application/problem+json"
        )
        response.headers["Cache-Control"] = "no-store"
        return response


def problem_of(error: HTTPException) -> Response:
    """Answer Flask's own errors (404, 405, 413, …) in the same form, keeping their headers (Allow)."""
    original = error.get_response()
    headers = {
        name: value for name, value in original.headers if name.lower() not in ("content-type", "content-length")
    }
    return Problem(error.code or 500, error.description or error.name, headers=headers).response()
