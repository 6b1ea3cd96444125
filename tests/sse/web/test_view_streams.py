"""``sse.response``: what an iterable may yield, how its stream ends, and that it is always closed."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import flask
import pytest

from sse import SSE, Message
from sse.events.model import InvalidEvent
from sse.extension import AppSSE
from sse.web.view_streams import encode_item, respond
from tests.support.sse_parser import EventParser, StreamEvent
from tests.support.wait import eventually


class Served:
    """One response, read as a browser reads it.

    closed: the reason, events and bytes of its end; told: clients were told that the iterable has ended.
    """

    def __init__(
        self,
        iterable: Iterable[Any],
        *,
        heartbeat: float = 0,
        hung_up: Callable[[], bool] | None = None,
        should_end: Callable[[], bool] = lambda: False,
    ) -> None:
        self.closed: list[tuple[str, int, int]] = []
        self.parser = EventParser()
        self.size = 0
        self.told = False
        self.body = respond(
            iterable,
            run=lambda work: work(),
            heartbeat=heartbeat,
            retry_ms=1000,
            hung_up=hung_up,
            should_end=should_end,
            on_close=lambda *what: self.closed.append(what),
        )

    def blocks(self) -> list[StreamEvent]:
        """All blocks, to the end, without the last one if it tells of the end."""
        found = []
        for chunk in self.body:
            self.size += len(chunk)
            found += self.parser.feed(chunk)
        assert not self.parser.partial
        if found and found[-1].event == "stream-end":
            self.told = found.pop().data == "{}"
        return found


def data_of(blocks: list[StreamEvent]) -> list[str | None]:
    return [block.data for block in blocks]


@pytest.mark.parametrize(
    ("item", "wire"),
    [
        pytest.param("x", b"data: x\n\n", id="text"),
        pytest.param("", b"data: \n\n", id="empty text"),
        pytest.param("a\r\nb\rc\nd", b"data: a\ndata: b\ndata: c\ndata: d\n\n", id="lines"),
        pytest.param(Message("x", "e", "7", 5), b"id: 7\nevent: e\nretry: 5\ndata: x\n\n", id="a message"),
        pytest.param({"data": "x", "event": "e"}, b"event: e\ndata: x\n\n", id="a mapping"),
        pytest.param({"event": "done"}, b"event: done\ndata: \n\n", id="a mapping without data is dispatched"),
    ],
)
def test_an_item_is_an_event(item: Any, wire: bytes) -> None:
    assert encode_item(item) == wire


@pytest.mark.parametrize(
    ("item", "error", "says"),
    [
        pytest.param(7, TypeError, "not int", id="a number"),
        pytest.param(b"x", TypeError, "not bytes", id="bytes"),
        pytest.param(None, TypeError, "not NoneType", id="None"),
        pytest.param({"dat": "x"}, TypeError, "dat", id="a slip in a field's name"),
        pytest.param({"data": 7}, InvalidEvent, "data: must be str", id="a number for data"),
        pytest.param(Message("x", "a\nb"), InvalidEvent, "CR, LF or NUL", id="LF in a type"),
        pytest.param(Message("x", None, "a\nevent: b"), InvalidEvent, "CR, LF or NUL", id="LF in an id"),
        pytest.param(Message("x", retry=-1), InvalidEvent, "retry", id="a negative retry"),
    ],
)
def test_an_item_that_is_not_an_event_is_refused(item: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encode_item(item)


def test_items_arrive_in_order_and_the_end_is_clean() -> None:
    served = Served(str(n) for n in range(100))
    assert data_of(served.blocks()) == [str(n) for n in range(100)]
    assert served.told
    assert served.closed == [("done", 100, served.size)]


def test_the_opening_is_sent_before_the_first_item() -> None:
    never = threading.Event()

    def slow() -> Iterator[str]:
        never.wait(10)
        yield "x"

    served = Served(slow())
    assert next(served.body).startswith(b":"), "the client must not wait for the first item"
    never.set()
    served.body.close()  # type: ignore[attr-defined]


def test_comments_are_sent_while_the_iterable_is_silent() -> None:
    def slow() -> Iterator[str]:
        time.sleep(0.35)
        yield "x"

    served = Served(slow(), heartbeat=0.05)
    assert data_of(served.blocks()) == ["x"]
    assert served.parser.comments >= 3, "the opening, and a comment each 50 ms"


class Closable:
    """An iterable that must be closed itself, like a client library's stream."""

    def __init__(self, items: list[Any]) -> None:
        self.items, self.closes, self.iterated = items, 0, False

    def __iter__(self) -> Iterator[Any]:
        self.iterated = True
        yield from self.items

    def close(self) -> None:
        self.closes += 1


def test_an_iterable_that_ends_is_closed() -> None:
    iterable = Closable(["x"])
    Served(iterable).blocks()
    eventually(lambda: iterable.closes == 1)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_the_iterable_is_closed_when_the_client_leaves(after: int) -> None:
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    served = Served(endless())
    for _ in range(after + 1):
        next(served.body)
    served.body.close()  # type: ignore[attr-defined]
    assert closed.wait(5)
    assert served.closed[0][:2] == ("client", max(after - 1, 0))


def test_a_hang_up_is_noticed_while_the_iterable_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sse.web.view_streams.HANG_UP_CHECK", 0.05)
    go_on = threading.Event()

    def silent() -> Iterator[str]:
        go_on.wait(10)
        yield "x"

    served = Served(silent(), hung_up=lambda: True)
    assert served.blocks() == []
    assert served.closed[0][0] == "client"
    go_on.set()


def failing(error: BaseException) -> Generator[str, None, None]:
    yield "x"
    raise error


class NotAnError(BaseException):
    """Like gevent's Timeout and asyncio's CancelledError."""


@pytest.mark.parametrize("error", [ValueError("secret"), NotAnError("secret"), StopAsyncIteration("secret")])
def test_an_iterable_that_raises_ends_with_an_error_event_and_a_log_line(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(failing(error))
    blocks = served.blocks()
    assert [(block.event, block.data) for block in blocks[:1]] == [(None, "x")]
    assert blocks[1].event == "error"
    assert json.loads(blocks[1].data or "")["title"]
    assert "secret" not in (blocks[1].data or ""), "only the log tells why"
    assert served.closed[0][:2] == ("error", 1)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info and record.exc_info[1] is error


def test_an_object_that_is_not_iterable_ends_the_stream_with_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    served = Served(7, heartbeat=0.05)  # type: ignore[arg-type]
    assert [block.event for block in served.blocks()] == ["error"]
    assert "not iterable" in caplog.text


def test_an_item_that_is_not_an_event_ends_the_stream_with_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    iterable = Closable(["x", 7, "never"])
    served = Served(iterable)
    assert [(block.event, block.data) for block in served.blocks()][0] == (None, "x")
    assert served.closed[0][:2] == ("error", 1)
    assert "not int" in caplog.text
    eventually(lambda: iterable.closes == 1)


def test_an_exception_of_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Closable):
        def close(self) -> None:
            raise OSError("cannot close")

    served = Served(Failing(["x"]))
    assert data_of(served.blocks()) == ["x"]
    assert served.closed[0][0] == "done"
    eventually(lambda: "cannot close" in caplog.text)


def test_the_iterable_is_at_most_one_item_ahead_of_the_client() -> None:
    produced = 0

    def fast() -> Iterator[str]:
        nonlocal produced
        for _ in range(1000):
            produced += 1
            yield "x"

    served = Served(fast())
    next(served.body)
    for _ in range(3):
        next(served.body)
    time.sleep(0.1)
    assert produced <= 6, "three sent, and one ahead"
    served.body.close()  # type: ignore[attr-defined]


def test_the_end_of_a_drain_ends_the_stream_with_a_retry() -> None:
    iterable = Closable(["x"] * 1000)
    served = Served(iterable, should_end=lambda: True)
    blocks = served.blocks()
    assert blocks[-1].retry is not None and 500 <= blocks[-1].retry <= 1500
    assert served.closed[0][0] == "drain"
    assert not served.told, "the client is to come again"
    eventually(lambda: iterable.closes == 1)


# ── in a view ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def app() -> flask.Flask:
    app = flask.Flask("responses")
    app.config["SSE_LOG"] = "memory:"
    app.testing = True
    SSE(app)
    return app


def test_the_request_stays_available_to_the_iterable(app: flask.Flask) -> None:
    sse: AppSSE = app.extensions["sse"]

    @app.get("/count")
    def count() -> flask.Response:
        def items() -> Iterator[str]:
            yield flask.request.args["word"]
            yield flask.current_app.name

        return sse.response(items())

    answer = app.test_client().get("/count?word=hello")
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in answer.headers
    assert data_of(EventParser().feed(answer.data)) == ["hello", "responses", "{}"]
    assert (sse.stats.opened, sse.stats.closed) == (1, {"done": 1})


def test_a_head_request_closes_the_iterable(app: flask.Flask) -> None:
    sse: AppSSE = app.extensions["sse"]
    iterable = Closable(["x"])

    @app.get("/stream")
    def stream() -> flask.Response:
        return sse.response(iterable)

    answer = app.test_client().head("/stream")
    assert (answer.status_code, answer.data, answer.mimetype) == (200, b"", "text/event-stream")
    answer.close()
    assert (iterable.closes, iterable.iterated) == (1, False)
    assert (sse.stats.opened, sse.stats.closed) == (0, {}), "no stream was opened"


@pytest.mark.parametrize("raises", [False, True])
def test_the_iterable_is_closed_when_a_hook_replaces_the_response_or_raises(app: flask.Flask, raises: bool) -> None:
    sse: AppSSE = app.extensions["sse"]
    iterable = Closable(["x"])
    app.testing = False
    app.logger.disabled = True  # pytest keeps log records, whose traceback would keep the response alive

    @app.get("/stream")
    def stream() -> flask.Response:
        return sse.response(iterable)

    @app.after_request
    def lose(response: flask.Response) -> flask.Response:
        if raises:
            raise RuntimeError("a hook that fails")
        return flask.Response("something else")

    assert app.test_client().get("/stream").status_code == (500 if raises else 200)
    gc.collect()  # the exception's traceback is a reference cycle
    assert (iterable.closes, iterable.iterated) == (1, False)
    assert (sse.stats.opened, sse.stats.closed) == (0, {})


def test_no_heartbeats_are_sent_while_items_arrive() -> None:
    def speaking() -> Iterator[str]:
        for number in range(10):
            threading.Event().wait(0.1)
            yield str(number)

    served = Served(speaking(), heartbeat=0.7)
    assert len(served.blocks()) == 10
    assert served.parser.comments == 1, "the opening's"


def test_no_comment_is_sent_before_a_heartbeats_time_has_passed() -> None:
    def silent() -> Iterator[str]:
        threading.Event().wait(1.3)
        yield "x"

    served = Served(silent(), heartbeat=600.0, hung_up=lambda: False)
    assert data_of(served.blocks()) == ["x"]
    assert served.parser.comments == 1, "the opening's"
