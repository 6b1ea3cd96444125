"""Other people's clients against the real service. :mod:`tests.clients.kinds` has their known faults,
:mod:`tests.clients.scenes` what they all go through."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.kinds import KINDS, Chromium, Firefox, Go, Node, Python
from tests.clients.scenes import RETRY, TEXTS, Theatre
from tests.support.ledger import position

RETRY_RANGE = RETRY / 1000 - 0.05, RETRY / 1000 + 1.1

all_clients = pytest.mark.parametrize("name", KINDS)
those_that_take_any_data = pytest.mark.parametrize("name", [kind.name for kind in KINDS.values() if not kind.dress])


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    programs = Python(), Node(), Go(Path(tmp_path_factory.mktemp("go"))), Chromium(), Firefox()
    with contextlib.ExitStack() as stack:
        for program in programs:
            stack.callback(program.close)
        yield Theatre(programs)


@pytest.fixture
def known(request: pytest.FixtureRequest, name: str) -> Callable[[str], None]:
    """``known(case)`` expects the test to fail if the client is known to."""

    def expect(case: str) -> None:
        if reason := KINDS[name].limits.get(case):
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    return expect


def normalized(data: str) -> str:
    """Return data as it arrives by §9.2.5: every line end is a LF."""
    return data.replace("\r\n", "\n").replace("\r", "\n")


@those_that_take_any_data
@pytest.mark.parametrize("case", TEXTS)
def test_data_arrives_as_it_was_published(theatre: Theatre, name: str, case: str, known: Callable[[str], None]) -> None:
    account = theatre.account("contents", name)
    known(case)
    arrived: list[str] = []
    for event in account.events:
        if event.type == "message":
            arrived.append(event.data)
        elif event.type == "update" and event.data != case:
            arrived = []    # those were another case's
        elif event.type == "update":
            break
    assert arrived == [normalized(text) for text in TEXTS[case]]


@those_that_take_any_data
def test_type_and_id_arrive(theatre: Theatre, name: str) -> None:
    account = theatre.account("contents", name)
    assert account.data("update") == list(TEXTS)
    ids = [event.id for event in account.events if event.type != "heartbeat"]
    assert all(ids) and len(set(ids)) == len(ids)


@those_that_take_any_data
def test_heartbeats_arrive_from_the_opening_on(theatre: Theatre, name: str) -> None:
    account = theatre.account("contents", name)
    assert account.events[0].type == "heartbeat"
    beats = [int(beat) for beat in account.data("heartbeat")]
    assert len(beats) > 1 and all(abs(beat / 1000 - time.time()) < 120 for beat in beats)


@all_clients
def test_what_is_missed_before_the_first_event_arrives(theatre: Theatre, name: str) -> None:
    account = theatre.account("cut", name)
    assert account.data("message")[:1] == ["unseen"]
    assert account.arrivals[0].last_event_id is None
    begin = account.arrivals[1].last_event_id
    assert begin and position(begin) < position(account.published["unseen"])


@all_clients
def test_the_servers_retry_is_waited_for(theatre: Theatre, name: str, known: Callable[[str], None]) -> None:
    account = theatre.account("cut", name)
    known("retry")
    waited = account.arrivals[1].at - account.notes["cut"]
    assert RETRY_RANGE[0] <= waited <= RETRY_RANGE[1]


@all_clients
def test_a_cut_connection_is_resumed_where_it_was(theatre: Theatre, name: str) -> None:
    account = theatre.account("cut", name)
    assert account.data("message")[:4] == ["unseen", "missed 0", "missed 1", "missed 2"]
    assert account.arrivals[2].last_event_id == account.published["unseen"]


@all_clients
def test_a_gap_is_told_and_what_follows_is_whole(theatre: Theatre, name: str, known: Callable[[str], None]) -> None:
    account = theatre.account("cut", name)
    assert account.data("message")[4:] == [f"lost {number}" for number in range(3, 8)]
    known("gap")
    resets = [json.loads(data) for data in account.data("stream-reset")]
    assert [reset["reason"] for reset in resets] == ["too-far"]
    assert account.data("message", "stream-reset")[4] == account.data("stream-reset")[0]


@all_clients
def test_a_full_server_is_come_back_to_and_nothing_is_missed(theatre: Theatre, name: str) -> None:
    account = theatre.account("full", name)
    assert account.notes["refusals"] >= 2
    assert account.data("message") == ["while there was no room"]


@all_clients
def test_a_restart_loses_nothing_and_repeats_nothing(theatre: Theatre, name: str) -> None:
    account = theatre.account("restart", name)
    assert account.data("message") == ["before", "while it drains", "after"]
    assert len(account.arrivals) >= 3
