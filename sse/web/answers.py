"""What all answers share: common headers, refusals, and the check that the log fits the server."""

from __future__ import annotations

import logging
from typing import Any, Final

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from ..auth.cors import cors_headers
from ..auth.decision import AccessDenied
from ..log import ChannelClosed, IdempotencyConflict, LogRefused, LogUnavailable
from ..log.base import Stored
from ..observe.environ import HUNG_UP
from ..observe.request_id import HEADER, request_id
from .problems import Problem, problem_of
from .service import Service

logger = logging.getLogger("headwater")


def check_log(service: Service, request: Request) -> None:
    """Refuse a log in memory on a server with several processes: each would have a log of its own.

    Most servers do not start then (:func:`sse.web.servers.refuse_company`); all set ``wsgi.multiprocess`` (PEP 3333).
    Raises Problem (500).
    """
    if request.environ.get("wsgi.multiprocess") and not service.shared_log:
        detail = "SSE_LOG=memory: is for one process, and this server has several"
        logger.error("%s: set sqlite:///… or redis://…", detail)
        raise Problem(500, detail)


def common_headers(service: Service, environ: dict[str, Any]) -> dict[str, str]:
    """Return the headers that every answer has: CORS, and the request id."""
    headers = cors_headers(service.settings, environ.get("HTTP_ORIGIN"))
    # Our own worker adds the request id to every answer, including those of other views.
    if HUNG_UP not in environ:
        headers[HEADER] = request_id(environ)
    return headers


class NoContent(Exception):
    """Nothing is left to send to this client, nor ever will be: 204, at which an EventSource stops for good
    (WHATWG HTML §9.2.3)."""


# The detail of a 503, by ``LogUnavailable.stored``.
_NOT_STORED: Final[dict[Stored, str]] = {
    "no": "the log cannot be written now; nothing was stored, so it is safe to repeat the request",
    "unknown": "the log did not confirm in time, so the events may be stored; it is safe to repeat the request with "
    "the same Idempotency-Key, and without one they may be stored twice",
}


def refusal(service: Service, error: Exception) -> Response | None:
    """Return the answer to an exception of publishing or streaming; None if the exception is a bug."""
    match error:
        case Problem():
            return error.response()
        case AccessDenied():
            return Problem(error.status, error.detail, headers=error.headers).response()
        case LogUnavailable():
            service.warn_of_refusals(error)  # for operators only: it names files and hosts
            headers = {"Retry-After": str(max(1, round(error.retry_after)))}
            return Problem(503, _NOT_STORED[error.stored], headers=headers, stored=error.stored).response()
        case LogRefused():
            logger.error("%s", error)
            return Problem(500, "the event log cannot be used; the server's own log says why").response()
        case NoContent():
            return Response(status=204)
        case IdempotencyConflict():
            return Problem(422, "this Idempotency-Key was used with another body").response()
        case ChannelClosed(channel=channel):
            detail = f"{channel} takes no more events, and cannot be closed again, until it is erased"
            return Problem(409, detail, title="the channel is closed", channel=channel).response()
        case HTTPException():
            return problem_of(error)
    return None
