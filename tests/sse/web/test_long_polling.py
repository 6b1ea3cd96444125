"""Long polling: requests for history that wait for an event."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.sse.auth.fakes import SECRET, bearer, claims, hs256
from tests.sse.web.history_site import Site, data


@pytest.fixture
def site(closing: ExitStack) -> Site:
    return Site(closing)


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
