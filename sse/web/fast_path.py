"""``/events/<channel>`` on a way around Flask's dispatch, taken only where the answer cannot differ.

A publish, or a stream that opens, costs more in Flask (contexts, routing, hooks, a response object) than in our views.
The lane stands where ``app.wsgi_app`` was, inside of any middleware, takes the requests whose route is plain, and does
what the view does by the same function of :mod:`sse.web.streaming`. What is refused, or fails, goes through Flask after
all: the view raises the same error there, and the app's error handlers have their say.

An app in which anything else takes part (:mod:`sse.web.plain_app` decides) is served by Flask as ever; one that changes
later is looked at again, and the lane is closed for good when it is not plain any more.

One kind of hook leaves it open: a ``before_request`` function with an attribute ``passes``, which says of an environ,
without any context, that the hook would do nothing. (So ``health`` keeps publishing off its port.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Final

import flask
from werkzeug.sansio.utils import get_content_length
from werkzeug.wrappers import Request
from werkzeug.wsgi import get_input_stream

from ..events.model import CHANNEL_PATTERN
from . import routes as views
from . import streaming as endpoints
from .plain_app import Seen, is_plain
from .view_streams import STREAM_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ..extension import SSE

_PREFIX: Final = "/events/"

# Ways that were found to lead to our views (method, scheme, host, path) and are remembered; beyond that they are
# forgotten all at once.
MAX_WAYS: Final = 10_000

# Seconds between two thorough looks at an app that seems not to have changed; and how often one may change before it is
# left to Flask, because looking costs more than the dispatch.
LOOK_INTERVAL: Final = 1.0
MAX_CHANGES: Final = 100

# What Werkzeug makes of an environ for each request.
_MADE: Final = frozenset(
    {"headers", "method", "path", "query_string", "remote_addr", "root_path", "scheme", "server", "shallow"}
)


class LaneRequest(Request):
    """Werkzeug's request, with attributes that are made when they are asked for; a publish needs few."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ

    def __getattr__(self, name: str) -> Any:
        if name not in _MADE:
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


class Lane:
    """A WSGI application around Flask's own. One for an app."""

    def __init__(self, app: flask.Flask, sse: SSE) -> None:
        self._app = app
        self._sse = sse
        # Middleware that was there first must have its turn first, so then nothing is taken.
        self._middleware: WSGIApplication | None = vars(app).get("wsgi_app")
        self._closed = self._middleware is not None
        self._seen: Seen | None = None
        self._look_at = 0.0  # the next thorough look, monotonic seconds
        self._changes = 0
        self._ways: set[tuple[str, str, str, str]] = set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "POST" or method == "GET":
            path: str = environ["PATH_INFO"]
            if path.startswith(_PREFIX) and CHANNEL_PATTERN.fullmatch(path, len(_PREFIX)) and self._takes(environ):
                serve = self._publish if method == "POST" else self._stream
                return serve(environ, start_response, path[len(_PREFIX) :])
        return self._flask(environ, start_response)

    def _flask(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._middleware is not None:
            return self._middleware(environ, start_response)
        app = self._app
        return type(app).wsgi_app(app, environ, start_response)  # an agent may have patched it meanwhile

    def _publish(self, environ: WSGIEnvironment, start_response: StartResponse, channel: str) -> Iterable[bytes]:
        sse = self._sse
        try:
            body = endpoints.publish_event(sse, LaneRequest(environ), channel).encode()
        except Exception as error:
            environ[views.RAISED] = error
            return self._flask(environ, start_response)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers += endpoints.common_headers(sse, environ).items()
        start_response("201 CREATED", headers)
        return (body,)

    def _stream(self, environ: WSGIEnvironment, start_response: StartResponse, channel: str) -> Iterable[bytes]:
        sse = self._sse
        try:
            body = endpoints.open_stream(sse, LaneRequest(environ), (channel,))
        except Exception as error:
            environ[views.RAISED] = error
            return self._flask(environ, start_response)
        headers = [*STREAM_HEADERS.items(), *endpoints.common_headers(sse, environ).items()]
        if isinstance(body, tuple):  # sent away: that is all
            headers.append(("Content-Length", str(sum(map(len, body)))))
        start_response("200 OK", headers)
        return body

    def _takes(self, environ: WSGIEnvironment) -> bool:
        if self._closed:
            return False
        seen = self._seen
        if seen is None or not seen.holds():
            seen = self._look(changed=True)
        elif time.monotonic() >= self._look_at:
            seen = self._look(changed=False)
        if seen is None:
            return False
        # Flask does something else with a WebSocket, and with a context that is to be kept (its test client's).
        if "HTTP_UPGRADE" in environ or "werkzeug.debug.preserve_context" in environ:
            return False
        if seen.session_cookie is not None and seen.session_cookie in environ.get("HTTP_COOKIE", ""):
            return False  # a permanent session is refreshed by each answer
        for passes in seen.passes:
            if not passes(environ):
                return False
        host = environ.get("HTTP_HOST", "")
        way = (environ["REQUEST_METHOD"], environ["wsgi.url_scheme"], host, environ["PATH_INFO"])
        return way in self._ways or self._leads_here(way, environ)

    def _look(self, changed: bool) -> Seen | None:
        """Look at the app thoroughly. None, and the lane is closed, if it is not plain."""
        app = self._app
        self._changes += changed
        # From here on Flask refuses new hooks and routes, as after any first request.
        app._got_first_request = True
        self._look_at = time.monotonic() + LOOK_INTERVAL
        try:
            plain = self._changes <= MAX_CHANGES and is_plain(app)
            if plain and changed:
                self._seen, self._ways = Seen(app), set()
        except Exception:  # a Flask whose inside is another than those that this was written for
            plain = False
        if not plain:
            self._closed, self._seen = True, None
        return self._seen

    def _leads_here(self, way: tuple[str, str, str, str], environ: WSGIEnvironment) -> bool:
        """Would Flask find our view for this request? Worked out by Flask's own routing, once."""
        method, _, host, path = way
        if not host:
            return False  # it would be another one of the environ's
        try:
            adapter = self._app.create_url_adapter(flask.Request(environ, populate_request=False))
            assert adapter is not None
            endpoint, values = adapter.match()
        except Exception:  # no such route, a redirect, a bad host
            return False
        view = views.publish_one if method == "POST" else views.stream_one
        if endpoint != f"{views.blueprint.name}.{view.__name__}" or values != {"channel": path[len(_PREFIX) :]}:
            return False
        if len(self._ways) >= MAX_WAYS:
            self._ways = set()
        self._ways.add(way)
        return True
