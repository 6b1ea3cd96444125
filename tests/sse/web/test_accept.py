"""Which Accept headers, among those of real clients, allow an event stream."""

from __future__ import annotations

import pytest

from sse.web.query import accepts_stream, prefers_json

ALLOWED = [
    "",
    ",",
    "text/event-stream",
    "TEXT/Event-Stream",
    "text/event-stream;charset=UTF-8",  # RxNetty, Spring
    "text/event-stream; charset=utf-8",
    'text/event-stream; charset="utf-8"',
    "text/event-stream ; q=0.5",
    "text/event-stream;level=1",
    "text/event-stream;charset=UTF-8, application/json",
    "application/json, text/event-stream",
    ",text/event-stream,",
    "text/*",
    "text/*;q=0.1",
    "*/*;q=0.1",
    "*",
    "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",  # HttpURLConnection before JDK 18
    "text/html;q=0.9,*/*;q=0.001",
    "*/*;q=0, text/event-stream",
    "text/*;q=0, text/event-stream;q=1",
    "text/event-stream;q=0, text/event-stream;charset=utf-8",
    "text/event-stream;v=b3;q=0.9,*/*;q=0.8",
    "text/event-stream;q=high",
    "text/event-stream;q=",
]

EXCLUDED = [
    "application/json",
    "text/html, application/xhtml+xml",
    "*/*;q=0",
    "text/plain, */*;q=0",
    "*/*, text/event-stream;q=0",
    "*/*, text/*; q=0.000",
    "text/event-stream;q=0.0, application/json",
    "text/event-stream;charset=utf-8;q=0, */*",
    "text/event-streams",
    "application/*",
]


@pytest.mark.parametrize("accept", ALLOWED)
def test_a_stream_is_allowed_by(accept: str) -> None:
    assert accepts_stream(accept)


@pytest.mark.parametrize("accept", EXCLUDED)
def test_a_stream_is_excluded_by(accept: str) -> None:
    assert not accepts_stream(accept)


@pytest.mark.parametrize(
    ("accept", "json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json, text/plain, */*", True),  # axios
        ("application/json;q=0.9, text/event-stream;q=0.1", True),
        ("application/json;q=0.1", True),
        ("application/json;q=high", True),
        ("application/json, text/event-stream", False),  # clients that take either mean a stream
        ("text/event-stream, application/json;q=0.5", False),
        ("application/json;q=0", False),
        ("application/json;q=0, */*", False),
        ("application/problem+json", False),
        ("application/x-ndjson", False),
        ("application/*", False),
        ("*/*", False),
        ("", False),
        (None, False),
    ],
)
def test_json_is_asked_for_by_name(accept: str | None, json: bool) -> None:
    assert prefers_json(accept) is json
