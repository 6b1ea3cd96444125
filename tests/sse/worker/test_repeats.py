"""A head that repeats is answered by the function that the app offered, and by the app in every case of doubt."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import flask
import pytest
from werkzeug.test import EnvironBuilder

from sse import SSE
from sse.observe.environ import REPEAT
from sse.settings import Settings
from sse.worker.connection import Connection
from sse.worker.head_memory import MAX_HEAD_BYTES, HeadMemory
from sse.worker.parser import CachedConfig
from sse.worker.repeats import MAX_REPEATS, Repeat, only_ours, whole
from tests.sse.worker.test_head_memory import CFG, LISTENER, PEER, config
from tests.support.wait import eventually

HEAD = b"POST /events/a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


def post(body: bytes, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(post(b"hello"), b"hello", id="one request"),
        pytest.param(post(b""), b"", id="without a body"),
        pytest.param(post(b"hello").replace(b"Content-Length", b"content-length"), b"hello", id="small letters"),
        pytest.param(post(b"hello")[:-1], None, id="a part of the body"),
        pytest.param(post(b"hello")[:30], None, id="a part of the head"),
        pytest.param(post(b"hello") + b"P", None, id="more than one request"),
        pytest.param(post(b"hello").replace(b": 5", b": +5"), None, id="no digits"),
        pytest.param(post(b"hello").replace(b": 5", b":5"), None, id="no blank"),
        pytest.param(b"GET /events/a HTTP/1.1\r\nHost: a\r\n\r\n", None, id="no length"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\nContent-Length: 0\r\n\r\n", None, id="a length in the body"),
        pytest.param(post(b"", b"GET /" + b"a" * MAX_HEAD_BYTES + b"\r\nContent-Length: %d\r\n\r\n"), None, id="long"),
    ],
)
def test_only_one_whole_request_is_split(data: bytes, body: bytes | None) -> None:
    found = whole(data)
    assert (found and found.body) == body


def test_two_heads_are_the_same_only_if_nothing_but_the_digits_of_the_length_differs() -> None:
    def key(data: bytes) -> bytes:
        found = whole(data)
        assert found is not None
        return found.key

    assert key(post(b"hello")) == key(post(b"other"))
    assert key(post(b"hello")) != key(post(b"0123456789"))  # a longer number could bypass a limit
    assert key(post(b"hello")) != key(post(b"hello", HEAD.replace(b"Host: a", b"Host: b")))
    assert key(post(b"hello")) != key(post(b"hello", HEAD.replace(b"/a ", b"/b ")))


class Site:
    """A connection with an app that answers each request, and offers a function for those with the same head."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings.from_mapping({"SSE_LOG": "memory:", **settings})
        self.by_app: list[bytes] = []
        self.by_repeat: list[bytes] = []
        self.raised: list[Exception | None] = []
        self.closings: list[str] = []
        self.result: Callable[[bytes], bytes | None] = lambda body: b"again"
        self.draining = False
        self.client, self._end = socket.socketpair()
        self.client.settimeout(5)
        self.connection = Connection(self._end, PEER, self.settings, lambda: self.draining, listener=LISTENER)
        self._heads = HeadMemory(CFG)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self.connection.requests(CFG, self._answer, self.closings.append, self._heads)
        self.connection.finish()

    def _answer(self, request: Any) -> bool:
        self.by_app.append(request.body.read())
        self.raised.append(request.raised)
        if self.connection.may_repeat(request, CFG):
            first = "HTTP/1.1 200 OK\r\nServer: s\r\nDate: "
            self.connection.offered = Repeat(self._again, "POST", "/events/a", PEER[0], "200 OK", first, "X-A: b\r\n")
        self._end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napp")
        return True

    def _again(self, body: bytes) -> bytes | None:
        self.by_repeat.append(body)
        return self.result(body)

    def ask(self, *pieces: bytes) -> bytes:
        """Send a request in these pieces; return the answer."""
        for piece in pieces:
            self.client.sendall(piece)
        data = b""
        while not data.endswith((b"app", b"again")) and (more := self.client.recv(65536)):
            data += more
        return data

    def learn(self) -> None:
        """Send one request until its head is known, and the app has offered to answer it again."""
        for _ in range(2):
            assert self.ask(post(b"first")).endswith(b"app")

    def close(self) -> None:
        self.client.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def closing_app() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def site() -> Iterator[Site]:
    with closing(Site()) as site:
        yield site


def test_the_same_head_is_answered_without_the_app(site: Site) -> None:
    site.learn()
    answers = [site.ask(post(body)) for body in (b"hello", b"other")]
    assert (site.by_repeat, len(site.by_app)) == ([b"hello", b"other"], 2)
    head, _, body = answers[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK" and body == b"again"
    names = [line.partition(":")[0] for line in lines[1:]]
    assert names == ["Server", "Date", "Connection", "X-Request-ID", "X-A", "Content-Length"]
    assert "Connection: keep-alive" in lines and "Content-Length: 5" in lines
    assert answers[0] != answers[1], "each answer has a request id of its own"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([post(b"hello", HEAD.replace(b"/a ", b"/b "))], id="another path"),
        pytest.param([post(b"hello", HEAD.replace(b"POST", b"GET"))], id="another method"),
        pytest.param([post(b"hello", HEAD.replace(b"Host: a", b"Host: a\r\nAuthorization: Bearer x"))], id="a token"),
        pytest.param([post(b"0123456789")], id="a longer number"),
    ],
)
def test_another_head_goes_to_the_app(site: Site, pieces: list[bytes]) -> None:
    site.learn()
    assert site.ask(*pieces).endswith(b"app")
    assert site.by_repeat == []


def test_none_lets_the_app_answer_which_may_offer_another_function(site: Site) -> None:
    site.learn()
    site.result = lambda body: None
    assert site.ask(post(b"hello")).endswith(b"app")
    assert (site.by_repeat, site.by_app[-1]) == ([b"hello"], b"hello")
    site.result = lambda body: b"again"
    assert site.ask(post(b"later")).endswith(b"again")


def test_an_error_is_answered_by_the_app(site: Site) -> None:
    site.learn()
    error = RuntimeError("the log is away")

    def fail(body: bytes) -> bytes:
        raise error

    site.result = fail
    assert site.ask(post(b"hello")).endswith(b"app")
    assert (site.by_app[-1], site.raised[-1]) == (b"hello", error)
    assert site.raised[:-1] == [None] * 2


def test_a_known_head_that_was_forgotten_goes_to_the_app(site: Site) -> None:
    site.learn()
    eventually(lambda: site.connection._repeats)  # the server's thread keeps the head after it has answered
    site.connection.forget()
    assert site.ask(post(b"hello")).endswith(b"app")
    assert site.ask(post(b"hello")).endswith(b"again")


def test_a_connection_keeps_few_heads(site: Site) -> None:
    for number in range(2 * MAX_REPEATS):
        for _ in range(2):
            site.ask(post(b"hello", HEAD.replace(b"/a ", b"/a%d " % number)))
        assert len(site.connection._repeats) <= MAX_REPEATS


def test_the_last_request_of_a_connection_says_so() -> None:
    with closing(Site(SSE_KEEPALIVE_REQUESTS="4")) as site:
        site.learn()
        assert b"Connection: keep-alive" in site.ask(post(b"hello"))
        assert b"Connection: close" in site.ask(post(b"hello"))
        assert site.client.recv(1) == b""
        assert site.closings == ["keepalive-requests"]


def test_a_worker_that_drains_says_so_and_closes(site: Site) -> None:
    site.learn()
    site.draining = True
    assert b"Connection: close" in site.ask(post(b"hello"))
    assert site.client.recv(1) == b""
    assert site.closings == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_middleware_around_the_app_sees_every_request(closing_app: ExitStack, wrapped: bool) -> None:
    app = flask.Flask("repeats")
    app.config.update(SSE_LOG="memory:", SSE_AUTH="none")
    closing_app.callback(SSE(app).stop)
    if wrapped:
        inner = app.wsgi_app
        app.wsgi_app = lambda environ, start: inner(environ, start)  # type: ignore[method-assign]
    found: list[bool] = []
    environ = EnvironBuilder("/events/a", method="POST", data=b"first").get_environ()

    def answer() -> None:
        environ[REPEAT] = lambda again: found.append(only_ours(sys._getframe(1), answer.__code__))
        list(app(environ, lambda status, headers: None))

    answer()
    assert found == [not wrapped]


def test_a_hook_of_gunicorns_configuration_sees_every_request() -> None:
    class Request:
        method = "POST"
        head = object()

    connection = Connection(None, PEER, Settings.from_mapping({"SSE_LOG": "memory:"}), lambda: False)
    assert connection.may_repeat(Request, CFG)
    hooked: CachedConfig = config(post_request=lambda worker, req, environ, resp: None)
    assert not connection.may_repeat(Request, hooked)
