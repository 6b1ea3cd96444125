"""The worker remembers the headers of earlier answers, and does not check them again."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName

from sse.settings import Settings
from sse.worker import response as http
from sse.worker.connection import Connection
from sse.worker.parser import CachedConfig
from sse.worker.response import Response
from tests.fuzz.requests import Wire

SETTINGS = Settings.from_mapping({"SSE_LOG": "memory:"})
CFG = CachedConfig(Config())


class Asked:
    """The part of a request that an answer reads."""

    method, version = "GET", (1, 1)

    def should_close(self) -> bool:
        return False


def begun(*headers: tuple[Any, Any]) -> Response:
    connection = Connection(Wire(b"", 1), ("127.0.0.1", 5), SETTINGS, lambda: False)
    response = Response(Asked(), connection.sock, CFG, connection, connection.take_over)
    response.start_response("200 OK", list(headers))
    return response


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Content-Type", "application/json"), ("Content-Length", "34")], id="a publish's answer"),
        pytest.param([("Content-Type", "text/event-stream"), ("Cache-Control", " no-store\t")], id="a stream's"),
        pytest.param([("Content-Length", "3"), ("Connection", "close")], id="one that closes"),
        pytest.param([("Vary", "a"), ("Vary", "b"), ("Keep-Alive", "x"), ("X-Own", "1")], id="twice, hop by hop, own"),
    ],
)
def test_remembered_headers_have_the_same_effect(headers: list[tuple[str, str]]) -> None:
    http._KNOWN.clear()
    first, second = begun(*headers), begun(*headers)
    for name in ("headers", "response_length", "chunked", "event_stream", "must_close", "upgrade"):
        assert getattr(first, name) == getattr(second, name), name
    first.send_headers()
    second.send_headers()
    assert first._head == second._head


def test_an_invalid_header_is_refused_each_time() -> None:
    for _ in range(2):
        for headers, error in (
            (("Content-Type", "a\r\nX: b"), InvalidResponseHeader),
            (("Content Type", "a"), InvalidResponseHeaderName),
            (("Content-Length", 3), TypeError),
            (("Content-Length", "x"), ValueError),
        ):
            with pytest.raises(error):
                begun(headers)


def test_remembered_headers_are_limited_and_contain_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    http._KNOWN.clear()
    begun(("Set-Cookie", "secret"), ("WWW-Authenticate", "x"), ("Content-Type", "a/b"))
    assert list(http._KNOWN) == [("Content-Type", "a/b")]
    monkeypatch.setattr(http, "MAX_KNOWN", 3)
    for length in range(20):
        begun(("Content-Length", str(length)))
        assert len(http._KNOWN) <= 3
