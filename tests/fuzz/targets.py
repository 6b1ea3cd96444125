"""The code that strangers' bytes reach first, and what must hold for any bytes. A target takes bytes and raises if that
does not hold; the code under test may raise only the error that it documents.

Each target has a few seeds. :mod:`tests.fuzz.run` feeds it by coverage (atheris); ``test_fuzz.py`` feeds it the seeds and a
few hundred mutations in every run of the tests.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sse.auth.address import address_bucket, client_address, parse_networks
from sse.auth.bearer import B64TOKEN, MAX_CREDENTIAL_CHARS, find_credential
from sse.auth.decision import AccessDenied, invalid_token
from sse.auth.keys import parse_key
from sse.auth.origin import is_loopback_host, local_publish_refusal, parse_host, parse_origin
from sse.auth.tokens import TokenVerifier
from sse.events.digest import digest_of
from sse.events.model import (
    CONTROL_EVENTS,
    MAX_POSITION,
    InvalidEvent,
    MalformedCursor,
    Record,
    check_channel,
    format_id,
    make_position,
    parse_id,
    parse_since,
)
from sse.events.patterns import Patterns, check_pattern
from sse.events.trace import read_mark, sampled
from sse.events.wire import encode_frame, reset_block
from sse.observe.request_id import request_id
from sse.runtime.lines import quoted
from sse.runtime.redaction import MASK, one_line, redact
from sse.web.ndjson import Batch, _line_by_line, batch
from sse.web.problems import Problem
from sse.web.publishing import idempotency_key, single
from tests.fuzz import requests
from tests.live.observe import fields
from tests.sse.auth.fakes import hs256
from tests.sse.auth.fakes import request as fake_request
from tests.support.sse_parser import EventParser

SECRET = "an HMAC secret of more than 32 bytes, in plain text"
PROXIES = parse_networks(("10.0.0.0/8", "fd00::/8"))


class Target(NamedTuple):
    """A function of bytes that raises if something is wrong, and its seeds."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def _text(data: bytes) -> str:
    """Decode like WSGI: each byte is a character."""
    return data.decode("latin-1")


def _pieces(data: bytes, count: int) -> list[bytes]:
    """Split into ``count`` pieces at 0xFF; missing ones are empty."""
    pieces = data.split(b"\xff", count - 1)
    return pieces + [b""] * (count - len(pieces))


# --- where a stream begins -------------------------------------------------------------------------------------------


def cursor(data: bytes) -> None:
    """Last-Event-ID, ``since``: a position in range, or malformed; what is sent back is one block."""
    for text in (_text(data), data.decode("utf-8", "replace")):
        for parse in (parse_id, parse_since):
            try:
                position = parse(text)
            except MalformedCursor as error:
                assert len(str(error)) < 800
            else:
                assert 0 <= position <= MAX_POSITION and text.isascii()
                assert parse_id(format_id(position)) == position
        (block,) = EventParser().feed(reset_block("malformed", text, None, 0, 5))
        assert block.id == "0-5" and json.loads(block.data or "")["reason"] == "malformed"
        try:
            assert check_channel(text, reserved_ok=True) == text and text.isascii() and len(text) <= 128
            assert not set(text) & set("/?#%&;\\*, \r\n\0") and text not in (".", "..")
        except InvalidEvent:
            pass


# --- what is published -----------------------------------------------------------------------------------------------


def event(data: bytes) -> None:
    """One publish: refused, or exactly one event at the subscriber, with exactly this type, data and retry."""
    kind, retry, body = _pieces(data, 3)
    type_ = kind.decode("utf-8", "replace") or None
    try:
        made = single("a", body, type_, retry.decode("latin-1") or None)
    except Problem as problem:
        assert problem.status == 400 and len(problem.detail) < 500
        json.dumps(problem.extra)
        return
    wire = encode_frame(Record(make_position(7, 1), made.channel, made.event, made.retry, made.data)).wire
    (block,) = EventParser().feed(wire)
    arrives = body.decode().replace("\r\n", "\n").replace("\r", "\n")
    assert (block.id, block.data, block.retry) == ("7-1", arrives, made.retry)
    assert block.event == type_ and type_ not in CONTROL_EVENTS


def ndjson(data: bytes) -> None:
    """A batch: events within the limits, as Python's json reads each line; or one problem, the first faulty line's."""
    expected: Problem | Batch = Batch()
    try:
        _line_by_line(data.removeprefix(b"\xef\xbb\xbf"), 1, expected, 20, 200)
    except Problem as problem:
        expected = problem
    try:
        events = batch(data, max_events=20, max_event_bytes=200)
    except Problem as problem:
        assert problem.status in (400, 413) and len(problem.detail) < 500
        json.dumps(problem.extra)
        assert not expected or (isinstance(expected, Problem) and expected.detail == problem.detail)
        return
    assert isinstance(expected, Batch) and (events, events.closing) == (expected, expected.closing)
    assert 0 < events.lines <= 20 and len(digest_of(events)) == 32
    lines = [json.loads(line) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    for given, made in zip([line for line in lines if "data" in line], events, strict=True):
        assert (made.channel, made.event, made.retry) == (given["channel"], given.get("event"), given.get("retry"))
        assert made.data == given["data"] if isinstance(given["data"], str) else json.loads(made.data) == given["data"]
        assert len(made.data.encode()) <= 200 and not made.channel.startswith("_")
        assert len(EventParser().feed(encode_frame(Record(5, made.channel, made.event, made.retry, made.data)).wire)) == 1


# --- who asks --------------------------------------------------------------------------------------------------------


def credential(data: bytes) -> None:
    """Header, cookie and query: one bearer token, none, or a 401 that repeats nothing of what was sent."""
    header, cookie, query = (_text(piece).translate({0: None, 10: None, 13: None}) for piece in _pieces(data, 3))
    headers = {name: value for name, value in (("Authorization", header), ("Cookie", cookie)) if value}
    try:
        found = find_credential(fake_request("GET", "/events/a?" + query.replace("#", ""), **headers), reading=True)
    except AccessDenied as denied:
        assert denied.status == 401
        return
    assert found is None or (B64TOKEN.fullmatch(found.value) and len(found.value) <= MAX_CREDENTIAL_CHARS)
    idempotent = _text(data)
    try:
        assert idempotency_key(idempotent) == idempotent and idempotent.isascii() and idempotent.isprintable()
    except Problem as problem:
        assert problem.status == 400


_verifier = TokenVerifier(lambda: parse_key(SECRET.encode(), allowed=("HS256",)))
_signature_fails = invalid_token("the token's signature is not by a key of this service").headers


def token(data: bytes) -> None:
    """An unsigned token is never accepted; a signed one is, exactly as far as its payload says."""
    try:
        _verifier.verify(_text(data))
        raise AssertionError("unsigned, and believed")
    except AccessDenied as denied:
        assert denied.status == 401
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        claims = _verifier.verify(hs256(payload, SECRET))
    except AccessDenied as denied:
        assert denied.status == 401 and denied.headers != _signature_fails
        return
    assert time.time() < claims.expires_at < float("inf")
    for name, patterns in (("publish", claims.publish), ("subscribe", claims.subscribe)):
        granted = payload.get("sse", {}).get(name, [])
        assert all(isinstance(pattern, str) for pattern in granted)
        for channel in ("a", "_canary", "_", *(pattern.rstrip("*") for pattern in granted)):
            assert patterns.covers(channel) == any(_matches(pattern, channel) for pattern in granted)


def _matches(pattern: str, channel: str) -> bool:
    """Match channel patterns a second way, slowly."""
    if not pattern.endswith("*"):
        return bool(channel) and pattern == channel
    stem = pattern[:-1]
    return bool(channel) and channel.startswith(stem) and stem.startswith("_") == channel.startswith("_")


def patterns(data: bytes) -> None:
    """A pattern matches what the rule says, and no spelling of it matches another channel."""
    pattern, channel = (piece.decode("utf-8", "replace") for piece in _pieces(data, 2))
    assert Patterns([pattern]).covers(channel) == _matches(pattern, channel)
    try:
        assert check_pattern(pattern) == pattern
    except ValueError:
        return
    assert pattern.isascii() and "*" not in pattern[:-1]


def address(data: bytes) -> None:
    """Behind proxies: an address, never one that an untrusted peer wrote, in a canonical form for counting."""
    listed, rfc = (_text(piece) for piece in _pieces(data, 2))
    environ: dict[str, Any] = {"HTTP_X_FORWARDED_FOR": listed}
    if rfc:
        environ["HTTP_FORWARDED"] = rfc
    assert client_address({**environ, "REMOTE_ADDR": "192.0.2.1"}, PROXIES) == "192.0.2.1"
    found = client_address({**environ, "REMOTE_ADDR": "10.0.0.1"}, PROXIES)
    assert str(ipaddress.ip_address(found)) == found
    bucket = address_bucket(found)
    assert address_bucket(found.upper()) == bucket and (ipaddress.ip_network(bucket).prefixlen in (32, 64))


def web_page(data: bytes) -> None:
    """Origin and Host: what passes is on this machine, and has only characters that a header may contain."""
    origin, host = (_text(piece) for piece in _pieces(data, 2))
    parsed = parse_origin(origin)
    assert parsed is None or (origin.isascii() and origin.isprintable() and not set(origin) & set(" ,\"'<>;/@")- set("/"))
    asked = parse_host(host)
    assert asked is None or (host.isascii() and host.isprintable() and not set(host) & set(" /,@\"'<>;"))
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": host, "HTTP_ORIGIN": origin}
    if local_publish_refusal(environ, ()) is None:
        assert asked is not None and parsed is not None and is_loopback_host(asked[0]) and parsed.host == asked[0]


def correlation(data: bytes) -> None:
    """Request ids and traces, chosen by the caller: plain characters that a header may contain, or replaced."""
    text = _text(data)
    named = request_id({"HTTP_X_REQUEST_ID": text})
    assert 0 < len(named) <= 64 and named.isascii() and named.isprintable() and not set(named) & set(" \"'\\,;=<>") - {"="}
    carried = sampled(text)
    assert carried is None or (len(carried) == 55 and set(carried) <= set("0123456789abcdef-") and sampled(carried) == carried)
    assert carried is None or carried[3:52] == text[3:52]
    mark = read_mark(data, 5)
    assert mark is None or (mark.first == 5 and mark.last >= 4 and sampled(mark.parent) == mark.parent)


# --- what is logged --------------------------------------------------------------------------------------------------


def log_line(data: bytes) -> None:
    """No value runs into the next; a secret in a URL is masked; masking twice changes nothing."""
    text = data.decode("utf-8", "replace")
    line = f"request client={quoted(text)} status=200"
    assert line.isascii() and line.isprintable()
    assert fields(line) == {"kind": "request", "client": text, "status": "200"}
    shown = one_line(redact(text))
    assert len(shown.splitlines()) <= 1
    once = redact(f"{text} access_token=s3cr3tV4lue Bearer s3cr3tV4lue")
    assert "s3cr3tV4lue" not in once and MASK in once
    assert redact(once) == once


_NOW = int(time.time()) + 86400

TARGETS = {
    "request": Target(requests.run, requests.SEEDS),
    "cursor": Target(cursor, [b"1732345678901-0", b"earliest", b"1732345678901", b"0-0", b"9" * 70 + b"-1", b"orders:a.b-c_1"]),
    "event": Target(event, [b"\xff\xffhello", b"update\xff5000\xfftwo\r\nlines\rthree", b"heartbeat\xff\xffx", b"\xff\xff\xe2\x80\xa8id: 1\n\n"]),
    "ndjson": Target(
        ndjson,
        [
            b'{"channel":"a","data":"x"}\n{"channel":"b","data":{"n":1},"event":"e","retry":5}\n',
            b'\xef\xbb\xbf{"channel":"a","data":"\\ud83d\\ude00"}\r\n\n',
            b'{"channel":"a","data":"\\ud800"}', b'{"channel":"_a","data":1e999}', b'[[[[', b'{"channel":"a","data":1,"data":2}',
        ],
    ),
    "credential": Target(credential, [b"Bearer abc.def.ghi", b"\xffsse_token=abc; a=b", b"\xff\xffaccess_token=abc&access_token=abc", b"basic x\xffsse_token=\"a\"\xffaccess_token=%61"]),
    "token": Target(
        token,
        [
            b'{"exp":%d,"sse":{"publish":["a","b:*"],"subscribe":["*","_*"]},"sub":"s"}' % _NOW,
            b'{"exp":1e400,"sse":[]}', b'{"exp":"%d","nbf":5,"iat":"x","aud":["a"]}' % _NOW,
            b"eyJhbGciOiJub25lIn0.e30.", b"eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYiJdfQ.e30.AAAA",
        ],
    ),
    "patterns": Target(patterns, [b"orders:*\xfforders:1", b"*\xff_canary", b"_*\xff_stats", b"a*b\xffa*b"]),
    "address": Target(address, [b"1.2.3.4, 10.0.0.2", b"\xfffor=1.2.3.4;by=10.0.0.1, for=\"[fd00::1]:80\"", b"::ffff:1.2.3.4\xfffor=unknown", b"fe80::1%eth0,[::1]:5"]),
    "web_page": Target(web_page, [b"http://localhost:8080\xfflocalhost:8080", b"null\xff127.0.0.1", b"http://[::1]\xff[::1]:80", b"https://a.example\xff127.1"]),
    "correlation": Target(correlation, [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"r 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 12", b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", b"a1b2:c3/d4+e5=="]),
    "log_line": Target(log_line, [b"/events/a?access_token=abc", b"redis://u:p/w@h/0 eyJhbGciOiJub25lIn0.e30.x", b"http://a:b@c/?x=http%3A%2F%2Fd?t%6fken%3dx", b"\xe2\x80\xae\x1b[2J\r\n"]),
}  # fmt: skip
