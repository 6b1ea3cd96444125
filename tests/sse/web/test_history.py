"""History as JSON: pages that neither skip nor repeat an event."""

from __future__ import annotations

from contextlib import ExitStack

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client

from sse.events.model import format_id, make_position
from tests.sse.auth.fakes import SECRET, bearer, claims, hs256
from tests.sse.web.history_site import JSON, Site, data
from tests.support.wait import eventually


@pytest.fixture
def site(closing: ExitStack) -> Site:
    return Site(closing)


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


def test_a_position_in_unix_milliseconds_is_a_cursor(site: Site) -> None:
    site.publish("a", "0")
    later = (site.sse.hub.window.position >> 20) + 1
    assert site.page(f"/events/a?since={later}")["next"] <= format_id(make_position(later))
