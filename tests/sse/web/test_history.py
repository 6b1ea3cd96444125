"""History as JSON, and long polling: pages that neither skip nor repeat an event, and requests that wait for one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client

from sse import SSE
from sse.events.model import format_id, make_position
from tests.sse.auth.fakes import SECRET, bearer, claims, hs256
from tests.support.wait import eventually

JSON = {"Accept": "application/json"}


class Site:
    """An app with a log in memory."""

    def __init__(self, closing: ExitStack, **config: Any) -> None:
        self.app = flask.Flask("history")
        self.app.config.update({"SSE_LOG": "memory:", "SSE_AUTH": "none", **config})
        self.sse = SSE(self.app)
        closing.callback(self.sse.stop)
        assert self.sse.hub.wait_ready(5)

    def publish(self, channel: str, *data: str, event: str | None = None) -> list[str]:
        """Publish, and wait until the worker has read it."""
        ids = [self.sse.publish(channel, one, event) for one in data]
        self.caught_up()
        return ids

    def caught_up(self) -> None:
        eventually(lambda: self.sse.hub.window.position >= self.sse.log.bounds().latest)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        answer = Client(self.app, flask.Response).get(path, headers={**JSON, **headers})
        return answer.status_code, json.loads(answer.data)

    def page(self, path: str, **headers: str) -> Any:
        status, body = self.get(path, **headers)
        assert status == 200, body
        return body

    @contextmanager
    def asking(self, path: str, **headers: str) -> Iterator[Callable[[], Any]]:
        """Ask in a thread; yields a function that waits for the answer, once the request waits."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(self.get(path, **headers)))
        polls = self.sse.hub.admission.polls
        thread.start()
        eventually(lambda: self.sse.hub.admission.polls == polls + 1 or found, 5)

        def answer() -> Any:
            thread.join(20)
            return found[0]

        try:
            yield answer
        finally:
            thread.join(70)


@pytest.fixture
def site(closing: ExitStack) -> Site:
    return Site(closing)


def data(page: Any) -> list[str]:
    return [event["data"] for event in page["events"]]


# ── pages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_has_each_events_id_channel_type_and_data(site: Site) -> None:
    first, = site.publish("orders", "one\r\ntwo\0\u2028", event="created")
    second, = site.publish("orders", "")
    page = site.page("/events/orders")
    assert page["events"] == [
        {"id": first, "channel": "orders", "event": "created", "data": "one\r\ntwo\0\u2028"},
        {"id": second, "channel": "orders", "event": None, "data": ""},
    ]
    assert page["reset"] is None and page["closed"] is False
    answer = Client(site.app, flask.Response).get("/events/orders", headers=JSON)
    assert answer.mimetype == "application/json" and answer.headers["Cache-Control"] == "no-store"


def test_the_cursor_is_a_parameter_or_a_header_and_the_header_wins(site: Site) -> None:
    ids = site.publish("a", "0", "1", "2", "3")
    assert data(site.page("/events/a?since=earliest")) == ["0", "1", "2", "3"]
    assert data(site.page(f"/events/a?since={ids[1]}")) == ["2", "3"]
    assert data(site.page("/events/a", **{"Last-Event-ID": ids[2]})) == ["3"]
    assert data(site.page(f"/events/a?since={ids[0]}", **{"Last-Event-ID": ids[2]})) == ["3"]
    assert data(site.page(f"/events/a?lastEventId={ids[2]}")) == ["3"]


@given(
    published=st.lists(st.tuples(st.sampled_from("abx"), st.sampled_from(["t", "u", None])), max_size=30),
    limit=st.integers(1, 7),
    window=st.sampled_from([1024, 1_000_000]),
    asked=st.sampled_from(
        [("/events/a", "a", None), ("/events?channel=a&channel=b", "ab", None), ("/events/*", "abx", None), ("/events/a*", "a", "t"),
         ("/events?channel=b&channel=x*", "bx", "message")]
    ),
)  # fmt: skip
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_next_neither_skips_nor_repeats(
    published: list[tuple[str, str | None]], limit: int, window: int, asked: tuple[str, str, str | None]
) -> None:
    path, channels, kind = asked
    with ExitStack() as closing:
        site = Site(closing, SSE_WINDOW_BYTES=window)
        cursor, found = "earliest", []
        expected = []
        for number, (channel, event) in enumerate(published):
            site.sse.publish(channel, str(number), event)
            if channel in channels and (kind is None or kind == (event or "message")):
                expected.append(str(number))
            if number % 11 == 10:  # pages are read while more is published
                site.caught_up()
                page = site.page(f"{path}{'&' if '?' in path else '?'}since={cursor}&limit={limit}{f'&event={kind}' if kind else ''}")
                cursor, found = page["next"], found + data(page)
        site.caught_up()
        for _ in range(40):
            page = site.page(f"{path}{'&' if '?' in path else '?'}since={cursor}&limit={limit}{f'&event={kind}' if kind else ''}")
            assert len(page["events"]) <= limit and page["reset"] is None
            cursor, found = page["next"], found + data(page)
        assert found == expected


def test_a_quiet_channels_cursor_stays_fresh(site: Site) -> None:
    site.publish("quiet", "1")
    site.publish("loud", *map(str, range(20)))
    page = site.page("/events/quiet")
    assert page["next"] == format_id(site.sse.hub.window.position)


def test_an_answer_ends_before_it_is_huge(closing: ExitStack) -> None:
    site = Site(closing, SSE_MAX_EVENT_BYTES=1_000_000)
    site.publish("a", *[str(n) * 300_000 for n in range(9)])
    cursor, sizes = "earliest", []
    while (page := site.page(f"/events/a?since={cursor}&limit=1000"))["events"]:
        cursor = page["next"]
        sizes.append(len(page["events"]))
    assert sum(sizes) == 9 and max(sizes) < 6


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=5&limit=6", "limit"),
        ("limit=-1", "limit"),
        ("limit=٣", "limit"),
        ("wait=61", "wait"),
        ("wait=-1", "wait"),
        ("wait=1.5", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("wait=1e9", "wait"),
        ("wait=soon", "wait"),
        ("wait=1&wait=2", "wait"),
        ("event=", "event"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(site: Site, query: str, field: str) -> None:
    status, body = site.get(f"/events/a?{query}")
    assert status == 400 and field in body["detail"]


@pytest.mark.parametrize("path", ["/events/_stats", "/events/_canary", "/events/_control", "/events/_*", "/events"])
def test_our_own_channels_have_no_history(site: Site, path: str) -> None:
    assert site.get(path)[0] == 400


def test_head_has_no_body_and_does_not_wait(site: Site) -> None:
    answer = Client(site.app, flask.Response).head("/events/a?wait=60", headers=JSON)
    assert answer.status_code == 200 and answer.data == b"" and answer.mimetype == "application/json"


def test_reading_history_needs_the_right_to_subscribe(closing: ExitStack) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    token = bearer(hs256(claims(subscribe=["orders:eu:*"])))
    assert site.get("/events/orders:eu:1")[0] == 401
    assert site.get("/events/orders:eu:1", **token)[0] == 200
    assert site.get("/events/orders:eu:*", **token)[0] == 200
    for path in ("/events/orders:*", "/events/orders:us", "/events?channel=orders:eu:1&channel=x"):
        assert site.get(path, **token)[0] == 403


# ── resets, ends, erasure ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [("nonsense", "malformed"), ("99999999999999-0", "unknown"), ("1-0", "before-log")],
)
def test_a_cursor_that_cannot_be_used_is_told_and_the_page_has_what_there_is(
    site: Site, cursor: str, reason: str
) -> None:
    site.publish("a", "1")
    page = site.page(f"/events/a?lastEventId={cursor}")
    assert page["reset"] == {"reason": reason} and data(page) == ["1"]
    assert site.page(f"/events/a?since={page['next']}")["reset"] is None


def test_only_a_loss_of_its_own_channel_is_told(closing: ExitStack) -> None:
    site = Site(closing, SSE_RETAIN="loud=5", SSE_WINDOW_BYTES=1024)
    (first,) = site.publish("quiet", "1")
    site.publish("loud", *map(str, range(50)))
    eventually(lambda: len(site.sse.log.read(["loud"], 0, 100, 10**6)) == 5, 10)
    assert site.page(f"/events/quiet?since={first}")["reset"] is None
    page = site.page(f"/events/loud?since={first}")
    assert page["reset"] == {"reason": "expired"} and data(page) == ["45", "46", "47", "48", "49"]
    assert site.page(f"/events/loud?since={page['next']}")["reset"] is None


def test_a_closed_channel_is_said_to_be_so_on_its_last_page(site: Site) -> None:
    site.publish("a", "1", "2")
    site.sse.close("a")
    site.caught_up()
    first = site.page("/events/a?limit=1")
    assert data(first) == ["1"] and first["closed"] is False
    last = site.page(f"/events/a?since={first['next']}")
    assert data(last) == ["2"] and last["closed"] is True
    assert site.page(f"/events/a?since={last['next']}&wait=60") == {**last, "events": []}
    # Of several channels, all must be closed; a pattern never is.
    assert site.page("/events?channel=a&channel=b")["closed"] is False
    assert site.page("/events/a*")["closed"] is False


def test_an_erased_channel_is_told_to_a_reader_who_goes_on(site: Site) -> None:
    (first,) = site.publish("a", "secret")
    site.publish("b", "1")
    site.sse.erase("a")
    site.caught_up()
    site.publish("a", "new")
    page = site.page(f"/events?channel=a&channel=b&lastEventId={first}")
    assert page["reset"] == {"reason": "erased", "channel": "a"} and data(page) == ["1", "new"]
    whole = site.page("/events?channel=a&channel=b")
    assert whole["reset"] is None and data(whole) == ["1", "new"]


# ── long polling ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/events/a:1", "/events?channel=a:1&channel=b", "/events/a:*"])
def test_a_request_that_waits_is_answered_by_the_next_event(site: Site, path: str) -> None:
    site.publish("a:1", "0")
    cursor = site.page(path)["next"]
    with site.asking(f"{path}{'&' if '?' in path else '?'}wait=60&since={cursor}") as answer:
        site.sse.publish("other", "x")
        site.sse.publish("a:1", "1")
        status, page = answer()
    assert status == 200 and data(page) == ["1"] and page["next"] >= page["events"][0]["id"]
    assert site.sse.hub.admission.polls == site.sse.hub.admission.streams == 0 and not site.sse.hub.pulling


def test_a_request_that_waits_in_vain_gets_an_empty_page_and_a_newer_cursor(site: Site) -> None:
    (cursor,) = site.publish("a", "0")
    began = time.monotonic()
    with site.asking(f"/events/a?wait=1&since={cursor}") as answer:
        (other,) = site.publish("other", "x")
        status, page = answer()
    assert status == 200 and page["events"] == [] and page["next"] == other
    assert 0.9 < time.monotonic() - began < 10


def test_it_does_not_wait_for_what_is_there(site: Site) -> None:
    site.publish("a", "0")
    assert data(site.page("/events/a?wait=60")) == ["0"]
    assert site.page("/events/a?wait=60&lastEventId=bad")["reset"] == {"reason": "malformed"}


def test_other_types_do_not_answer_it(site: Site) -> None:
    cursor = site.page("/events/a")["next"]
    with site.asking(f"/events/a?wait=60&since={cursor}&event=t") as answer:
        site.publish("a", "0", event="u")
        site.publish("a", "1", event="t")
        assert data(answer()[1]) == ["1"]


def test_nothing_is_lost_between_two_polls(site: Site) -> None:
    stop = threading.Event()

    def publish() -> None:
        number = 0
        while not stop.wait(0.001):
            site.sse.publish("a", str(number))
            number += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        found: list[str] = []
        cursor = "earliest"
        while len(found) < 200:
            page = site.page(f"/events/a?wait=5&since={cursor}&limit=7")
            cursor, found = page["next"], found + data(page)
    finally:
        stop.set()
        thread.join()
    assert found == [str(number) for number in range(len(found))]


def test_an_event_that_comes_while_it_begins_to_wait_answers_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (cursor,) = site.publish("a", "0")
    admission = site.sse.hub.admission
    admit = admission.admit_poll

    def late(client: str) -> str | None:
        site.publish("a", "1")  # it has looked, and the hub does not know of it yet
        return admit(client)

    monkeypatch.setattr(admission, "admit_poll", late)
    began = time.monotonic()
    assert data(site.page(f"/events/a?wait=60&since={cursor}")) == ["1"]
    assert time.monotonic() - began < 30


def test_closing_and_erasing_answer_it(site: Site) -> None:
    (cursor,) = site.publish("a", "0")
    with site.asking(f"/events/a?wait=60&since={cursor}") as answer:
        site.sse.close("a")
        assert answer()[1]["closed"] is True
    (cursor,) = site.publish("b", "0")
    with site.asking(f"/events/b?wait=60&since={cursor}") as answer:
        site.sse.erase("b")
        assert answer()[1]["reset"] == {"reason": "erased", "channel": "b"}


def test_it_does_not_ask_the_log_while_it_waits(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (cursor,) = site.publish("a", "0")
    log, asked = site.sse.log, []
    for name in ("read", "newest", "floor", "bounds", "gone", "closed"):
        method = getattr(log, name)

        def noting(*args: Any, _name: str = name, _method: Any = method, **kwargs: Any) -> Any:
            if args[:1] != (None,):  # the tailer reads all channels
                asked.append(_name)
            return _method(*args, **kwargs)

        monkeypatch.setattr(log, name, noting)
    with site.asking(f"/events/a?wait=2&since={cursor}") as answer:
        before = len(asked)
        site.publish("other", *map(str, range(20)))
        time.sleep(1)  # it has nothing to do meanwhile
        during = asked[before:]
        assert answer()[1]["events"] == []
    assert [name for name in during if name != "bounds"] == [] and len(during) < 5, during


def test_it_counts_as_a_stream_of_its_client(closing: ExitStack) -> None:
    site = Site(closing, SSE_MAX_STREAMS_PER_IP=2)
    cursor = site.publish("a", "0")[-1]
    with site.asking(f"/events/a?wait=60&since={cursor}") as first, site.asking(f"/events/a?wait=60&since={cursor}") as second:
        assert site.sse.hub.admission.streams == 2
        status, body = site.get(f"/events/a?wait=60&since={cursor}")
        assert status == 503 and "no room" in body["detail"]
        assert site.page(f"/events/a?since={cursor}")["events"] == [], "without wait there is room"
        assert data(site.page("/events/a?wait=60")) == ["0"], "nor is it needed for what is there"
        site.sse.publish("a", "1")
        assert data(first()[1]) == data(second()[1]) == ["1"]
    assert site.sse.hub.admission.streams == 0


def test_half_of_the_workers_connections_may_wait(closing: ExitStack) -> None:
    site = Site(closing)
    hub = site.sse.hub
    for _ in range(site.sse.settings.worker_connections // 2):
        assert hub.admission.admit_poll("192.0.2.1") is None
    assert hub.admission.admit_poll("192.0.2.2") == "streams"
    assert hub.admission.admit("192.0.2.2") is None, "streams have connections of another kind"
    hub.admission.release_poll("192.0.2.1")
    assert hub.admission.admit_poll("192.0.2.2") is None


def test_a_drain_ends_it_at_once_with_an_empty_page(site: Site) -> None:
    (cursor,) = site.publish("a", "0")
    with site.asking(f"/events/a?wait=60&since={cursor}") as answer:
        site.sse.hub.admission.drain()
        site.sse.hub.wake_polls()
        began = time.monotonic()
        status, page = answer()
        assert status == 200 and page["events"] == [] and time.monotonic() - began < 5
    assert site.page(f"/events/a?wait=60&since={cursor}")["events"] == [], "and none waits any more"


def test_ending_a_subjects_streams_ends_its_polls(closing: ExitStack) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    now = int(time.time())
    token = bearer(hs256(claims(subscribe=["a"], sub="alice", iat=now - 60)))
    other = bearer(hs256(claims(subscribe=["a"], sub="bob", iat=now - 60)))
    (cursor,) = site.publish("a", "0")
    with site.asking(f"/events/a?wait=60&since={cursor}", **other) as bob:
        with site.asking(f"/events/a?wait=60&since={cursor}", **token) as alice:
            site.sse.disconnect(subject="alice")
            assert alice() == (200, alice()[1]) and alice()[1]["events"] == []
        assert site.get(f"/events/a?wait=60&since={cursor}", **token)[0] == 401
        site.sse.publish("a", "1")
        assert data(bob()[1]) == ["1"]


def test_a_token_ends_it(closing: ExitStack) -> None:
    site = Site(closing, SSE_AUTH="auto", SSE_JWT_KEY=SECRET)
    cursor = site.publish("a", "0")[-1]
    token = bearer(hs256({**claims(subscribe=["a"]), "exp": time.time() + 1.5}))
    with site.asking(f"/events/a?wait=60&since={cursor}", **token) as answer:
        began = time.monotonic()
        assert answer()[1]["events"] == [] and time.monotonic() - began < 10


def test_a_position_in_unix_milliseconds_is_a_cursor(site: Site) -> None:
    site.publish("a", "0")
    later = (site.sse.hub.window.position >> 20) + 1
    assert site.page(f"/events/a?since={later}")["next"] <= format_id(make_position(later))
