"""``/events/<channel>`` without Flask's dispatch, where nobody would notice.

A publish, or a stream that opens, costs more in Flask (contexts, routing, hooks, a response object) than in our views.
The lane goes in front of ``app.wsgi_app``, takes the requests whose route is plain, and does what the view does by the
same function of :mod:`sse.endpoints`. Whatever an app may have put on that way closes it, and then Flask serves
as ever: a hook before or after requests (somebody's access check!), a view that was wrapped, a route of its own below
``/events``, a receiver of Flask's signals, a request class, a limit in ``app.config``, debug or testing mode.

One kind of hook leaves it open: a ``before_request`` function with an attribute ``passes``, which says of an environ,
without any context, that the hook would do nothing. (So ``health`` keeps publishing off its port.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, Final

import flask
from flask import signals
from werkzeug.sansio.utils import get_content_length
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_input_stream

from sse import endpoints, views
from sse.event import CHANNEL_PATTERN
from sse.responder import STREAM_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from sse.extension import SSE

_PREFIX: Final = "/events/"

# What Flask calls on the way of a request, by scope: None is the app's own, else a blueprint's.
_HOOKS: Final = (
    "after_request_funcs",
    "teardown_request_funcs",
    "url_value_preprocessors",
)

_SIGNALS: Final = (
    signals.request_started,
    signals.request_finished,
    signals.request_tearing_down,
    signals.got_request_exception,
    signals.appcontext_pushed,
    signals.appcontext_popped,
    signals.appcontext_tearing_down,
)

# Methods of Flask through which a request goes; a subclass that has its own means something by it.
_METHODS: Final = (
    "wsgi_app",
    "request_context",
    "create_url_adapter",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "make_response",
    "finalize_request",
    "process_response",
    "do_teardown_request",
)


# What Werkzeug makes of an environ for each request.
_MADE: Final = frozenset(
    {"headers", "method", "path", "query_string", "remote_addr", "root_path", "scheme", "server", "shallow"}
)


class LaneRequest(Request):
    """Werkzeug's request, of which nothing is made before it is asked for: a publish asks for little."""

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
    """A WSGI application in front of Flask's. One for an app."""

    def __init__(self, app: flask.Flask, sse: SSE) -> None:
        self._app = app
        self._sse = sse
        self._flask: WSGIApplication = app.wsgi_app
        self._open: bool | None = None
        self._passes: list[Callable[[WSGIEnvironment], bool]] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method == "POST" or method == "GET":
            path: str = environ["PATH_INFO"]
            if path.startswith(_PREFIX) and CHANNEL_PATTERN.fullmatch(path, len(_PREFIX)) and self._takes(environ):
                serve = self._publish if method == "POST" else self._stream
                return serve(environ, start_response, path[len(_PREFIX) :])
        return self._flask(environ, start_response)

    def _publish(self, environ: WSGIEnvironment, start_response: StartResponse, channel: str) -> Iterable[bytes]:
        sse = self._sse
        try:
            body = endpoints.publish_event(sse, LaneRequest(environ), channel).encode()
        except Exception as error:
            return self._refuse(environ, start_response, error)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers += endpoints.common_headers(sse, environ).items()
        start_response("201 CREATED", headers)
        return (body,)

    def _stream(self, environ: WSGIEnvironment, start_response: StartResponse, channel: str) -> Iterable[bytes]:
        sse = self._sse
        try:
            body = endpoints.open_stream(sse, LaneRequest(environ), (channel,))
        except Exception as error:
            return self._refuse(environ, start_response, error)
        headers = [*STREAM_HEADERS.items(), *endpoints.common_headers(sse, environ).items()]
        if isinstance(body, tuple):  # sent away: that is all
            headers.append(("Content-Length", str(sum(map(len, body)))))
        start_response("200 OK", headers)
        return body

    def _refuse(
        self, environ: WSGIEnvironment, start_response: StartResponse, error: Exception
    ) -> Iterable[bytes]:
        response: Response | None = endpoints.refusal(self._sse, error)
        if response is None:
            with self._app.request_context(environ):
                response = self._app.handle_exception(error)
        response.headers.update(endpoints.common_headers(self._sse, environ))
        return response(environ, start_response)

    def _takes(self, environ: WSGIEnvironment) -> bool:
        if self._open is None:
            app = self._app
            # From here on Flask refuses new hooks and routes, as after any first request.
            app._got_first_request = True
            self._open = is_plain(app)
            if self._open:
                self._passes = [getattr(hook, "passes") for hook in app.before_request_funcs.get(None, ())]  # noqa: B009
        return self._open and all([passes(environ) for passes in self._passes])


def is_plain(app: flask.Flask) -> bool:
    """Do publishing and streaming go through this app with nobody else taking part?"""
    config = app.config
    return (
        not (app.debug or app.testing or config["PROPAGATE_EXCEPTIONS"])
        and config.get("TRUSTED_HOSTS") is None
        and config["MAX_CONTENT_LENGTH"] is None
        and app.request_class is flask.Request
        and app.response_class is flask.Response
        and all(getattr(type(app), name) is getattr(flask.Flask, name) for name in _METHODS)
        and not app.before_request_funcs.get("sse")
        and all(hasattr(hook, "passes") for hook in app.before_request_funcs.get(None, ()))
        and not any(_others(getattr(app, kind)) for kind in _HOOKS)
        and not app.teardown_appcontext_funcs
        and not any(signal.receivers for signal in _SIGNALS)
        and app.view_functions.get("sse.publish_one") is views.publish_one
        and app.view_functions.get("sse.stream_one") is views.stream_one
        and not any(_is_rival(rule) for rule in app.url_map.iter_rules())
        and not app.url_map.host_matching
        and not app.subdomain_matching
    )


def _others(hooks: dict[str | None, list[Callable[..., Any]]]) -> bool:
    """Are there hooks of the whole app, or of our blueprint that are not ours?"""
    return bool(hooks.get(None)) or any(hook.__module__ != views.__name__ for hook in hooks.get("sse", ()))


def _is_rival(rule: Any) -> bool:
    """A route of the app's own that could be more specific than ours."""
    return rule.rule.startswith(_PREFIX) and not rule.endpoint.startswith("sse.")
