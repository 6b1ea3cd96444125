"""A fast path around Flask's dispatch for ``/events/<channel>``, taken only when the answer cannot differ.

Flask (contexts, routing, hooks, a response object) costs more than publishing or opening a stream. The fast path
replaces ``app.wsgi_app``, inside any middleware. It calls the same functions as the views (:mod:`sse.web.publishing`,
:mod:`sse.web.streaming`). A request that is refused or fails still goes through Flask: the view raises the same error
there, and the app's error handlers see it.

An app may take the fast path only while it is plain: nothing of its own takes part in these requests
(:mod:`sse.web.plain_app`). If the app changes, it is examined again. Once it is not plain, the fast path stays closed.

A ``before_request`` hook may keep an app plain. It needs an attribute ``lets_pass``, a function that tells from an
environ alone whether the hook would do nothing. (``health`` keeps publishing off its port this way.)
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Final

import flask
from werkzeug.sansio.utils import get_content_length
from werkzeug.wrappers import Request
from werkzeug.wsgi import get_input_stream

from ..events.model import CHANNEL_PATTERN
from ..observe.environ import RAISED, REPEAT
from . import routes as views
from .answers import common_headers
from .plain_app import Snapshot, is_plain
from .publishing import publish_event
from .query import prefers_json
from .repeated import RepeatedPublish, repeatable
from .service import Service
from .streaming import open_stream
from .view_streams import STREAM_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A channel's name, or a pattern.
_SELECTOR: Final = re.compile(rf"(?:{CHANNEL_PATTERN.pattern})\*?|\*")

# Limit on remembered routes to our views (method, scheme, host, path); at the limit, all are forgotten.
MAX_ROUTES: Final = 10_000

# Seconds between two thorough examinations of an app that seems unchanged.
EXAMINE_INTERVAL: Final = 1.0

# The fast path closes if the app changes more often than this: to examine it costs more than Flask's dispatch.
MAX_CHANGES: Final = 100

# Attributes that Werkzeug derives from the environ for each request.
_DERIVED: Final = frozenset(
    {"headers", "method", "path", "query_string", "remote_addr", "root_path", "scheme", "server", "shallow"}
)


class FastRequest(Request):
    """Werkzeug's request, which builds its attributes lazily; publishing needs few of them."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ

    def __getattr__(self, name: str) -> Any:
        if name not in _DERIVED:
            raise AttributeError(name)
        if name == "query_string":
            self.query_string = self.environ.get("QUERY_STRING", "").encode("latin-1")
        else:
            super().__init__(self.environ, populate_request=False)
        return self.__dict__[name]

    @property
    def content_length(self) -> int | None:
        digits = self.environ.get("CONTENT_LENGTH", "")
        if digits.isdecimal() and digits.isascii() and "HTTP_TRANSFER_ENCODING" not in self.environ:
            return int(digits)
        return get_content_length(
            http_content_length=self.environ.get("CONTENT_LENGTH"),
            http_transfer_encoding=self.environ.get("HTTP_TRANSFER_ENCODING"),
        )

    @property
    def stream(self) -> IO[bytes]:
        if "wsgi.input_terminated" in self.environ:
            found: IO[bytes] = self.environ["wsgi.input"]
            return found
        return get_input_stream(self.environ)


class FastPath:
    """A WSGI application around Flask's own; one for each app."""

    def __init__(self, app: flask.Flask, service: Service) -> None:
        self._app = app
        self._service = service
        self._prefix = f"{service.settings.sse_url_prefix}/"
        # Middleware that the app already has must see every request, so the fast path then takes none.
        self._middleware: WSGIApplication | None = vars(app).get("wsgi_app")
        self._closed = self._middleware is not None
        self._snapshot: Snapshot | None = None
        self._examine_at = 0.0  # the next thorough examination, monotonic seconds
        self._changes = 0
        self._routes: set[tuple[str, str, str, str]] = set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if (method == "POST" or method == "GET") and RAISED not in environ:
            path: str = environ["PATH_INFO"]
            prefix = self._prefix
            if path.startswith(prefix) and _SELECTOR.fullmatch(path, len(prefix)) and self._takes(environ):
                return self._answer(environ, start_response, path[len(prefix) :])
        return self._flask(environ, start_response)

    def _flask(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._middleware is not None:
            return self._middleware(environ, start_response)
        app = self._app
        return type(app).wsgi_app(app, environ, start_response)  # an agent may have patched it meanwhile

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse, channel: str) -> Iterable[bytes]:
        service, request = self._service, FastRequest(environ)
        body: Iterable[bytes]
        try:
            if environ["REQUEST_METHOD"] == "POST":
                status, headers = "201 CREATED", [("Content-Type", "application/json")]
                body = (publish_event(service, request, channel).encode(),)
            else:
                status, headers = "200 OK", [*STREAM_HEADERS.items()]
                body = open_stream(service, request, (channel,))
        except Exception as error:
            environ[RAISED] = error
            return self._flask(environ, start_response)
        if isinstance(body, tuple):  # complete: a publish's answer, or a stream that was sent away
            headers.append(("Content-Length", str(sum(map(len, body)))))
        headers += common_headers(service, environ).items()
        start_response(status, headers)
        if REPEAT in environ:
            self._offer(environ, channel)
        return body

    def _offer(self, environ: WSGIEnvironment, channel: str) -> None:
        """Tell the server, after a publish, how to answer a request with the same head without the app."""
        head, snapshot = repeatable(environ), self.plain()
        if environ["REQUEST_METHOD"] == "POST" and head is not None and snapshot is not None:
            again = RepeatedPublish(self.plain, snapshot, self._service, FastRequest(head), channel)
            environ[REPEAT](again)

    def plain(self) -> Snapshot | None:
        """Return what the app looks like now: the same object while nothing changes, None if it is not plain."""
        if self._closed or self._service.may is not None:  # the app's function needs Flask's context
            return None
        snapshot = self._snapshot
        if snapshot is None or not snapshot.matches():
            return self._examine(changed=True)
        if time.monotonic() >= self._examine_at:
            return self._examine(changed=False)
        return snapshot

    def _takes(self, environ: WSGIEnvironment) -> bool:
        snapshot = self.plain()
        if snapshot is None:
            return False
        if environ["REQUEST_METHOD"] == "GET" and prefers_json(environ.get("HTTP_ACCEPT")):
            return False  # history, which is no stream
        # Flask treats WebSockets differently, and contexts that its test client wants to keep.
        if "HTTP_UPGRADE" in environ or "werkzeug.debug.preserve_context" in environ:
            return False
        if snapshot.session_cookie is not None and snapshot.session_cookie in environ.get("HTTP_COOKIE", ""):
            return False  # Flask refreshes a permanent session with each answer
        for lets_pass in snapshot.lets_pass:
            if not lets_pass(environ):
                return False
        host = environ.get("HTTP_HOST", "")
        route = (environ["REQUEST_METHOD"], environ["wsgi.url_scheme"], host, environ["PATH_INFO"])
        return route in self._routes or self._leads_to_our_view(route, environ)

    def _examine(self, changed: bool) -> Snapshot | None:
        """Examine the app thoroughly. If it is not plain, close the fast path and return None."""
        app = self._app
        self._changes += changed
        # From here on Flask refuses new hooks and routes, as after any first request.
        app._got_first_request = True
        self._examine_at = time.monotonic() + EXAMINE_INTERVAL
        try:
            plain = self._changes <= MAX_CHANGES and is_plain(app)
            if plain and changed:
                self._snapshot, self._routes = Snapshot(app), set()
        except Exception:  # a Flask whose internals differ from those this was written for
            plain = False
        if not plain:
            self._closed, self._snapshot = True, None
        return self._snapshot

    def _leads_to_our_view(self, route: tuple[str, str, str, str], environ: WSGIEnvironment) -> bool:
        """Ask Flask's routing whether this request would reach our view; remember the route if so."""
        method, _, host, path = route
        if not host:
            return False  # Flask would take the host from elsewhere in the environ
        try:
            adapter = self._app.create_url_adapter(flask.Request(environ, populate_request=False))
            assert adapter is not None
            endpoint, values = adapter.match()
        except Exception:  # no such route, a redirect, a bad host
            return False
        view = views.publish_one if method == "POST" else views.stream_one
        if endpoint != f"{views.blueprint.name}.{view.__name__}" or values != {"channel": path[len(self._prefix) :]}:
            return False
        if len(self._routes) >= MAX_ROUTES:
            self._routes = set()
        self._routes.add(route)
        return True


# The code between a server and the offer of how to answer a head again. The server compares: any other code there, such
# as a middleware's, must see each request.
OFFERING: Final = frozenset(
    {flask.Flask.__call__.__code__, FastPath.__call__.__code__, FastPath._answer.__code__, FastPath._offer.__code__}
)
