"""Remembered heads: a copy equals what the parser would have made, and no other head is taken for it."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException

from sse.settings import Settings
from sse.worker import head_memory as module
from sse.worker.body import SizedBody
from sse.worker.connection import Connection
from sse.worker.head_memory import MAX_BYTES, MAX_HEAD_BYTES, MAX_HEADS, MAX_SEEN, Errors, HeadMemory, create
from sse.worker.parser import CachedConfig, Request
from tests.fuzz.requests import Wire

SETTINGS = Settings.from_mapping({"SSE_LOG": "memory:"})
LISTENER = ("127.0.0.1", 8080)
PEER = ("127.0.0.1", 5)


def config(**changed: Any) -> Any:
    cfg = Config()
    cfg.set("limit_request_field_size", SETTINGS.sse_max_header_bytes)
    for name, value in changed.items():
        cfg.set(name, value)
    return CachedConfig(cfg)


CFG = config()


class Made:
    """One request's facts, to be compared. ``known``: made without the parser."""

    def __init__(self, request: Any, connection: Connection, listener: Any, cfg: Any) -> None:
        self.known = isinstance(request.body, SizedBody)
        attributes = {name: value for name, value in vars(request).items() if name not in ("unreader", "body", "head")}
        closes = request.should_close()
        _, environ = create(
            request, connection.sock, connection.addr, listener, cfg, (connection, connection.take_over)
        )
        assert environ.pop("wsgi.input") is request.body
        assert hasattr(environ.pop("wsgi.errors"), "write")
        assert callable(environ.pop("wsgi.early_hints"))
        assert environ.pop("gunicorn.socket") is connection.sock
        self.facts = (attributes, closes, environ, request.body.read(), request.body.is_read())


def read(
    data: bytes,
    heads: HeadMemory | None,
    *,
    peer: Any = PEER,
    listener: Any = LISTENER,
    cfg: Any = CFG,
    step: int = 65536,
) -> list[Made] | None:
    """Return the requests that a connection reads from these bytes; None if it refuses them."""
    connection = Connection(Wire(data, step), peer, SETTINGS, lambda: False, listener=listener)
    made: list[Made] = []

    def answer(request: Any) -> bool:
        made.append(Made(request, connection, listener, cfg))
        return not request.should_close()

    try:
        connection.requests(cfg, answer, lambda reason: None, heads)
    except ParseException:
        return None
    return made


def taught(*requests: bytes, cfg: Any = CFG) -> HeadMemory:
    """Return a memory that has learnt the heads of these requests."""
    heads = HeadMemory(cfg)
    for data in requests:
        for _ in range(2):
            assert read(data, heads, cfg=cfg)
    return heads


def facts(made: list[Made] | None) -> Any:
    return None if made is None else [one.facts for one in made]


PUBLISH = (
    b"POST /events/orders?event=a%20b HTTP/1.1\r\nHost: example.com:8080\r\nContent-Type: text/plain\r\n"
    b"Authorization: Bearer 0123456789abcdef\r\nIdempotency-Key: key-1\r\nContent-Length: 12\r\n\r\nhello, world"
)

KEPT = [
    pytest.param(PUBLISH, id="a publish"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="no body"),
    pytest.param(b"HEAD /%C3%A9//x?y HTTP/1.1\r\nHost: a\r\n\r\n", id="path to be decoded"),
    pytest.param(b"GET http://b:1/c?d#e HTTP/1.1\r\nHost: a\r\n\r\n", id="absolute target"),
    pytest.param(b"GET / HTTP/1.0\r\n\r\n", id="HTTP/1.0, no fields"),
    pytest.param(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", id="HTTP/1.0, kept alive"),
    pytest.param(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", id="an empty line before it"),
    pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:   3  \r\n\r\nabc", id="other blanks and case"),
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc", id="leading zeros"),
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", id="a body of nothing"),
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nshort", id="a body that ends too soon"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", id="close among others"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-A: 2\r\nX-a: 3\r\n\r\n", id="a field three times"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B: \xe9\t\xff\r\n\r\n", id="empty, and not ASCII"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX_B: 1\r\nCookie: c=d; e=f\r\n\r\n", id="dropped for its underscore"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n", id="a proxy's scheme"),
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\ntraceparent: 00-1-2-3\r\n\r\n", id="holes"),
]


@pytest.mark.parametrize("data", KEPT)
def test_a_remembered_head_gives_the_same_request_as_the_parser(data: bytes) -> None:
    heads = HeadMemory(CFG)
    first, second, third = (read(data, heads) for _ in range(3))
    assert first and second and third
    assert [one.known for one in (*first, *second, *third)] == [False, False, True]
    assert facts(first) == facts(second) == facts(third) == facts(read(data, None))


def test_values_in_the_holes_are_the_requests_own() -> None:
    other = PUBLISH.replace(b"key-1", b"KEY+9").replace(b"12\r\n\r\nhello, world", b"05\r\n\r\nhello")
    found = read(other, taught(PUBLISH))
    assert found and found[0].known and found[0].facts[3] == b"hello"
    assert facts(found) == facts(read(other, None))


def test_a_value_of_another_length_in_a_hole_is_parsed() -> None:
    heads = taught(PUBLISH)
    for longer in (PUBLISH.replace(b"key-1", b"key-10"), PUBLISH.replace(b"Length: 12", b"Length: 012")):
        (found,) = read(longer, heads) or ()
        assert not found.known and facts([found]) == facts(read(longer, None))


def test_pipelined_requests_with_remembered_heads_are_read_as_the_parser_reads_them() -> None:
    many = PUBLISH * 3 + b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n" + PUBLISH
    found = read(many, taught(PUBLISH))
    assert found and [one.known for one in found] == [True, True, True, False, True]
    for step in (1, 50, len(PUBLISH) + 20, 65536):  # the facts include the requests' numbers
        assert facts(read(many, taught(PUBLISH), step=step)) == facts(read(many, None, step=step))


@pytest.mark.parametrize("byte", [b"\0", b"\n", b"\r", b" ", b":", b"0", b"9", b"x", b"\x80", b""])
def test_a_head_that_differs_in_one_byte_is_read_as_the_parser_reads_it(byte: bytes) -> None:
    heads = taught(PUBLISH)
    for place in range(PUBLISH.index(b"\r\n\r\n") + 4):
        changed = PUBLISH[:place] + byte + PUBLISH[place + 1 :]
        assert facts(read(changed, heads)) == facts(read(changed, None)), changed


def test_no_valid_request_equals_a_remembered_head_with_its_holes_cut_out() -> None:
    heads = taught(PUBLISH)
    cut = PUBLISH.replace(b"key-1", b"\0" * 5).replace(b"Length: 12", b"Length: \0\0")
    assert read(cut, heads) is None
    # A hole may hold other characters, but a length only digits.
    assert read(PUBLISH.replace(b"Length: 12", b"Length: 1x"), heads) is None


REFUSED_OR_RARE = [
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", id="chunked"),
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", id="Expect"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", id="Upgrade"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n", id="TE"),
    pytest.param(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n", id="another method"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", id="too long"),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\r\nidempotency-key: a\r\n\r\n", id="a hole's field twice"
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: a\r\nTraceparent: a\r\nTraceparent: b c\r\n\r\n", id="a hole's field, and no hole"
    ),
    pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000001\r\n\r\na", id="a length of 11 digits"),
]


@pytest.mark.parametrize("data", REFUSED_OR_RARE)
def test_an_unusual_head_is_parsed_each_time(data: bytes) -> None:
    heads = HeadMemory(CFG)
    for _ in range(3):
        found = read(data, heads)
        assert found and not found[0].known
    assert len(heads) == 0


def test_a_head_that_arrives_in_pieces_is_parsed() -> None:
    heads = taught(PUBLISH)
    found = read(PUBLISH, heads, step=40)
    assert found and not found[0].known
    assert facts(found) == facts(read(PUBLISH, None))


def hook(worker: Any, request: Any) -> None:
    request.headers.append(("X-HOOK", "1"))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"proxy_protocol": "auto"}, id="PROXY protocol"),
        pytest.param({"pre_request": hook}, id="a hook that sees requests"),
        pytest.param({"secure_scheme_headers": {"X-REQUEST-ID": "tls"}}, id="a hole that decides upon the scheme"),
    ],
)
def test_nothing_is_remembered_under_some_configurations(changed: dict[str, Any]) -> None:
    cfg = config(**changed)
    heads = HeadMemory(cfg)
    for _ in range(3):
        assert read(PUBLISH, heads, cfg=cfg)
    assert len(heads) == 0


def test_the_same_bytes_under_other_conditions_are_parsed() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"
    heads = taught(data)  # taught by a trusted peer: 127.0.0.1
    stranger, other = ("192.0.2.1", 7), ("127.0.0.1", 8081)
    for peer, listener in ((stranger, LISTENER), (PEER, other), (stranger, other)):
        found = read(data, heads, peer=peer, listener=listener)
        assert found and not found[0].known
        assert facts(found) == facts(read(data, None, peer=peer, listener=listener))
    for peer, scheme in ((PEER, "https"), (stranger, "http")):
        (again,) = read(data, heads, peer=peer) or ()
        assert again.facts[2]["wsgi.url_scheme"] == scheme


def test_a_remembered_head_takes_the_peer_of_its_connection() -> None:
    heads = taught(PUBLISH)
    (one,) = read(PUBLISH, heads, peer=("127.0.0.1", 999)) or ()
    assert one.known and one.facts[2]["REMOTE_PORT"] == "999"
    assert one.facts[0]["peer_addr"] == one.facts[0]["remote_addr"] == ("127.0.0.1", 999)


def test_changes_that_an_app_makes_to_a_request_do_not_reach_the_next() -> None:
    heads, environs = HeadMemory(CFG), []

    def answer(request: Any) -> bool:
        _, environ = create(request, connection.sock, PEER, LISTENER, CFG, (connection, connection.take_over))
        environs.append(dict(environ))
        environ["HTTP_AUTHORIZATION"] = environ["spoilt"] = "x"
        request.headers.append(("SPOILT", "x"))
        request.force_close()
        return True

    for _ in range(4):
        connection = Connection(Wire(PUBLISH, 65536), PEER, SETTINGS, lambda: False, listener=LISTENER)
        connection.requests(CFG, answer, lambda reason: None, heads)
    assert all("spoilt" not in environ and environ["HTTP_AUTHORIZATION"][:6] == "Bearer" for environ in environs)
    (last,) = read(PUBLISH, heads) or ()
    assert last.known and facts([last]) == facts(read(PUBLISH, None))


def test_a_request_with_an_unknown_attribute_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later gunicorn may add something of its connection to a request, which another client must not get."""
    parse = Request.set_body_reader

    def later(self: Any) -> None:
        parse(self)
        self.of_this_connection = []

    monkeypatch.setattr(Request, "set_body_reader", later)
    heads = taught(PUBLISH)
    found = read(PUBLISH, heads)
    assert found and not found[0].known and len(heads) == 0


def test_an_environ_with_an_unknown_key_is_made_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    make = wsgi.create

    def later(*args: Any, **kwargs: Any) -> Any:
        response, environ = make(*args, **kwargs)
        return response, environ | {"gunicorn.of_this_connection": object()}

    monkeypatch.setattr(wsgi, "create", later)
    heads = taught(PUBLISH)
    first, second = ((read(PUBLISH, heads) or ())[0].facts[2] for _ in range(2))
    assert first["gunicorn.of_this_connection"] is not second["gunicorn.of_this_connection"]


def test_the_sets_of_attributes_and_keys_are_exactly_gunicorns() -> None:
    made = []

    def answer(request: Any) -> bool:
        _, environ = create(request, connection.sock, PEER, LISTENER, CFG, (connection, connection.take_over))
        made.append((vars(request).keys() | {"head"}, environ.keys()))
        return False

    fields = b"Host: a\r\nContent-Type: b\r\nContent-Length: 0\r\n"
    connection = Connection(
        Wire(b"POST / HTTP/1.1\r\n" + fields + b"\r\n", 65536), PEER, SETTINGS, lambda: False, listener=LISTENER
    )
    connection.requests(CFG, answer, lambda reason: None, HeadMemory(CFG))
    ((attributes, keys),) = made
    assert attributes == module._SHARED | module._OWN
    assert keys - {"HTTP_HOST"} == module._SHARED_ENVIRON | module._OWN_ENVIRON


def head_number(number: int, size: int = 100) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Fill: %b\r\n\r\n" % (number, b"x" * size)


@pytest.mark.parametrize("size", [10, 3000])
def test_memory_is_bounded_in_number_and_bytes(size: int) -> None:
    heads = HeadMemory(CFG)
    for number in range(MAX_HEADS + 100 if size == 10 else 3 * MAX_BYTES // size):
        for _ in range(2):
            read(head_number(number, size), heads)
        generations = (heads._young, heads._old)
        assert all(len(one) <= MAX_HEADS for one in generations)
        assert all(sum(len(head) for _, head in one) <= MAX_BYTES for one in generations)
    assert len(heads) > 0


def test_a_head_that_appears_once_is_not_remembered() -> None:
    heads = HeadMemory(CFG)
    for number in range(MAX_SEEN + 10):
        seen = heads.look((LISTENER, True), head_number(number))
        assert seen is not None
        heads.learn(seen, b"", None)  # type: ignore[arg-type]  # of no interest the first time
    assert len(heads) == 0 and len(heads._seen) <= MAX_SEEN


def test_unused_heads_are_forgotten_and_used_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = taught(PUBLISH, head_number(1))
    heads.forget()
    assert len(heads) == 2, "it is not time yet"
    monkeypatch.setattr(module, "GENERATION_SECONDS", 0.0)
    for _ in range(3):
        heads.forget()
        (used,) = read(PUBLISH, heads) or ()
        assert used.known
    assert len(heads) == 1
    heads.forget()
    heads.forget()
    assert len(heads) == 0


def test_errors_go_where_gunicorns_go(capfd: pytest.CaptureFixture[str]) -> None:
    errors = Errors(config(errorlog="-"))
    errors.close()
    errors.writelines(["said ", "by the app\n"])  # type: ignore[list-item]  # text, as PEP 3333 has it
    errors.flush()
    assert "said by the app\n" in capfd.readouterr().err
