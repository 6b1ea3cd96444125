"""Hypothesis against the parsers: any input gives a valid result or the parser's own error."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sse.auth.bearer import B64TOKEN, find_credential
from sse.auth.decision import AccessDenied
from sse.events.digest import digest_of
from sse.events.model import MAX_POSITION, MalformedCursor, parse_id, parse_since
from sse.runtime.lines import quoted
from sse.runtime.redaction import redact
from sse.web.ndjson import batch
from sse.web.problems import Problem
from sse.web.publishing import idempotency_key, single
from tests.hardening.wire import exchange, replies
from tests.live.observe import fields
from tests.sse.auth.fakes import request as fake_request
from tests.support.server import Server

ANY = st.text(st.characters(codec=None), max_size=200)
HOSTILE = st.text(st.sampled_from("0123456789-+_ .eE\n\r\0\u0660\uff11\u2028eyJ%3d&;=\"\\'"), max_size=80)


@given(ANY | HOSTILE)
@example("9" * 5000 + "-1")
@example("1-1\n")
def test_any_cursor_is_a_position_or_malformed(text: str) -> None:
    for parse in (parse_id, parse_since):
        try:
            assert 0 <= parse(text) <= MAX_POSITION
        except MalformedCursor as error:
            assert len(str(error)) < 800


@given(ANY | HOSTILE)
def test_an_idempotency_key_is_unchanged_or_refused(text: str) -> None:
    try:
        assert idempotency_key(text) == text and text.isascii() and text.isprintable() and " " not in text
    except Problem as problem:
        assert problem.status == 400


LINES = st.lists(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["channel", "data", "event", "retry", "id", ""]),
        st.none() | st.booleans() | st.integers() | st.floats() | ANY | st.lists(st.integers(), max_size=2),
        max_size=5,
    ).map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b'{"channel":"a","data":"x"}', b"", b"\r", b"\xef\xbb\xbf{}", b"[" * 5000, b"1e9999"]),
    max_size=6,
)


@given(LINES)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=80)
def test_a_batch_gives_events_or_one_problem_with_its_line(lines: list[bytes]) -> None:
    try:
        events = batch(b"\n".join(lines), max_events=10, max_event_bytes=100)
    except Problem as problem:
        assert problem.status in (400, 413) and len(problem.detail) < 500
        return
    assert 0 < len(events) <= 10
    assert all(len(event.data.encode()) <= 100 and not event.channel.startswith("_") for event in events)
    assert len(digest_of(events)) == 32


@given(st.binary(max_size=80), ANY, HOSTILE)
def test_a_body_gives_one_event_or_one_problem(body: bytes, kind: str, retry: str) -> None:
    try:
        event = single("a", body, kind, retry)
    except Problem as problem:
        assert problem.status == 400 and len(problem.detail) < 500
        json.dumps(problem.extra)
        return
    assert event.data.encode() == body and event.event == kind and not set(kind) & set("\r\n\0")


@given(ANY | HOSTILE)
def test_a_value_cannot_forge_a_field_of_the_access_log(text: str) -> None:
    line = f"request client={quoted(text)} status=200"
    assert line.isascii() and line.isprintable()
    assert fields(line) == {"kind": "request", "client": text, "status": "200"}


@given(st.text(st.sampled_from("eyJ.=&%aA_-/?; \n"), max_size=60), st.sampled_from(["access_token=", "Bearer ", "sse_token="]))
def test_redaction_masks_the_whole_secret_and_is_idempotent(around: str, name: str) -> None:
    secret = "s3cr3tV4lue"
    once = redact(f"{around} {name}{secret}")
    assert secret not in once
    assert redact(once) == once


@pytest.mark.parametrize("piece", ["eyJ", "eyJ.", "bearer ", "token=", "://", "://a@", "%61ccess_token=", "@://", "a" * 50 + "="])
def test_redaction_takes_linear_time(piece: str) -> None:
    """100 KB of the worst case, which would take ten seconds in quadratic time."""
    began = time.perf_counter()
    redact((piece * 100_000)[:100_000])
    assert time.perf_counter() - began < 2


@given(st.lists(st.sampled_from(["Bearer", "bearer ", "Basic x", " ", "\t", "a.b.c", "=", "==", ",", "\u00e9", '"']), max_size=5))
def test_any_authorization_header_gives_one_token_none_or_a_refusal(parts: list[str]) -> None:
    try:
        found = find_credential(fake_request("GET", Authorization="".join(parts).strip()), reading=True)
    except AccessDenied as denied:
        assert denied.status == 401
        return
    assert found is None or B64TOKEN.fullmatch(found.value)


PIECES = st.sampled_from(
    [
        b"GET ", b"POST ", b"/events/f", b"/", b"*", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t",
        b"Host: a", b"Content-Length: ", b"Transfer-Encoding: chunked", b"5", b"0", b"-1", b":", b";", b"hello", b"\xff",
        b"Expect: 100-continue", b"Connection: close", b"Last-Event-ID: 1-1", b"%00", b"?event=", b"\r\n\r\n", b"0\r\n\r\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES, min_size=1, max_size=25).map(b"".join))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"POST /events/f HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
def test_any_bytes_get_well_formed_responses_or_none(open_server: Server, octets: bytes) -> None:
    answer = exchange(open_server.port, octets)
    if b"text/event-stream" in answer:
        return  # a stream; our half-close ended it
    found = replies(answer)
    assert all(reply.status < 500 or reply.status in (501, 505) for reply in found), found
