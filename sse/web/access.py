"""Decide whether a request may publish, subscribe or manage: the app is asked first, then keys and tokens."""

from __future__ import annotations

import logging
from collections.abc import Collection

from flask import has_request_context
from werkzeug.wrappers import Request

from ..auth.decision import AccessDenied, Grant
from ..auth.hook import Action, ask
from .problems import Problem
from .service import Service

logger = logging.getLogger("headwater")


def allowed(service: Service, request: Request, action: Action, channels: Collection[str]) -> Grant:
    """Return the grant for a request and all of its channels, names and patterns.

    Raises AccessDenied; Problem (500) if the app's own function fails, which never lets anybody in.
    """
    found = _asked(service, request, action, channels)
    if found is not None:
        return found
    authenticator = service.authenticator
    if action == "publish":
        return authenticator.may_publish(request, channels)
    if action == "subscribe":
        return authenticator.may_subscribe(request, channels)
    return authenticator.may_manage(request, channels)


def _asked(service: Service, request: Request, action: Action, channels: Collection[str]) -> Grant | None:
    may = service.may
    if may is None:
        return None
    try:
        if not has_request_context():
            raise RuntimeError("the app's function for sse.authorize needs Flask's request context")
        anonymous = service.authenticator.anonymous(request).subject
        return ask(may, request, action, tuple(dict.fromkeys(channels)), anonymous)
    except AccessDenied:
        raise
    except Exception:
        logger.exception("the app's function for sse.authorize failed, so the request is refused")
        raise Problem(500, "this service could not decide whether to allow this") from None
