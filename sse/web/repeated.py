"""Publishes that repeat an earlier request's head, byte for byte: the server asks this in place of the app.

Theory of operation. A publisher that keeps its connection sends the same head with each event, so most of what the fast
path finds out is known from the request before. What may have changed since is looked at each time, as for any other
request: the app, the settings, keys and tokens, the rate. In doubt the answer is None, nothing has happened, and the
server lets the app answer as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import flask
from werkzeug.wrappers import Request

from ..auth.policy import Publishing
from ..events.model import Event
from .access import allowed
from .publishing import publish_checked
from .service import Service

if TYPE_CHECKING:
    from .plain_app import Snapshot

# A request with one of these is not repeated: they are for one request, or change what is stored.
_NEVER: Final = frozenset({"HTTP_IDEMPOTENCY_KEY", "HTTP_TRACEPARENT", "HTTP_TRANSFER_ENCODING", "HTTP_X_REQUEST_ID"})


class RepeatedPublish:
    """Publishes one more event for each call, with the head of an earlier request.

    plain: see :meth:`sse.web.fast_path.FastPath.plain`; snapshot: what it returned for the earlier request.
    request: the earlier request, without anything that belongs to its connection; channel: what it was published to.
    """

    __slots__ = (
        "_authenticator",
        "_call",
        "_channel",
        "_grant",
        "_plain",
        "_publishing",
        "_request",
        "_service",
        "_snapshot",
        "_values",
    )

    def __init__(
        self, plain: Callable[[], Snapshot | None], snapshot: Snapshot, service: Service, request: Request, channel: str
    ) -> None:
        self._plain = plain
        self._snapshot = snapshot
        self._service = service
        self._request = request
        self._channel = channel
        self._values = vars(service.settings)  # a change of the settings puts another dict there (sse.settings.live)
        self._call = flask.Flask.__call__
        self._authenticator = service.authenticator
        self._publishing = service.authenticator.publishing()
        # Without a credential, only three things decide: the head, the settings, and what publishing needs now.
        anonymous = self._publishing in (Publishing.OPEN, Publishing.LOCAL)
        self._grant = allowed(service, request, "publish", (channel,)) if anonymous else None

    def __call__(self, body: bytes) -> bytes | None:
        """Publish ``body`` and return the answer's. None: nothing has happened; let the app answer.

        Raises what the log raises, which the app then has to answer.
        """
        service = self._service
        authenticator = service.authenticator
        if (
            self._plain() is not self._snapshot
            or vars(service.settings) is not self._values
            or flask.Flask.__call__ is not self._call
            or service.spans is not None
            or len(body) > service.settings.sse_max_event_bytes
        ):
            return None
        grant = self._grant
        try:
            event = Event(self._channel, body.decode())
            if (
                grant is None
                or authenticator is not self._authenticator
                or authenticator.publishing() is not self._publishing
            ):
                grant = allowed(service, self._request, "publish", (self._channel,))
        except Exception:  # the app refuses it again, and its error handlers see that
            return None
        if service.rate.wait(grant.subject):
            return None
        return publish_checked(service, event).encode()


def repeatable(environ: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a published request's environ says of its head; None if the next request may need more."""
    if environ.get("QUERY_STRING") or not _NEVER.isdisjoint(environ):
        return None
    return {name: value for name, value in environ.items() if type(value) is str}
