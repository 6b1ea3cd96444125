"""Clients that others wrote, against the real service: nine clients, nine cases.

Each scene is played once for all clients at the same time, through a relay of its own for each; the tests then look at
what each of them made of it. What a client is known to do otherwise is in :mod:`tests.clients.kinds`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clients.kinds import KINDS, GoClient, Kind, Running, Seen
from tests.clients.proxy import Arrival, Proxy
from tests.support.browser import chromium, page_of
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

# Milliseconds: longer than what a client waits on its own (1 s), shorter than what others do (3 s and more), and both
# by more than a busy machine is late.
RETRY = 1700
RETRY_RANGE = RETRY / 1000 - 0.05, RETRY / 1000 + 1.1

TEXTS = {
    "lines": ["a\nb", "a\n\n\nb", "one\r\ntwo\rthree", "{\n:\n}"],
    "empty lines": ["\n", "\nbegins with one", "ends with one\n", "with two\n\n"],
    "spaces": [" leading", "  two of them", "  {\n    deep\n  }"],
    "text": [": colon", "data: data", "trailing ", "a\u2028b\u0085c"],
    "byte order mark": ["\ufeffmark"],
    "unicode": ["žluťoučký kůň 🐎", "🏔️👩‍👩‍👧‍👦", "日本語", "\U0010ffff", "e\u0301 é", "\x00 \x01 \x7f"],
    "large": ["x" * 65536, "é" * 32768, "🐎" * 16384, "\n".join(["line"] * 13000)],
}


def normalized(data: str) -> str:
    """Data as §9.2.5 lets it arrive: every line end is a LF."""
    return data.replace("\r\n", "\n").replace("\r", "\n")


class Account(NamedTuple):
    """What one client saw of a scene, and what its relay saw of it."""

    events: list[Seen]
    arrivals: list[Arrival]
    notes: dict[str, Any]

    def data(self, *types: str) -> list[str]:
        return [event.data for event in self.events if event.type in types]


class Player:
    """One client in a scene."""

    def __init__(self, kind: Kind, server: Server, number: int, query: str) -> None:
        self.kind = kind
        self.channel = f"client{number}"
        self.proxy = Proxy(server.port)
        self.notes: dict[str, Any] = {}
        self.running: Running | None = None
        try:
            self.running = kind.start(f"http://127.0.0.1:{self.proxy.port}/events/{self.channel}{query}")
        except BaseException:
            self.proxy.close()
            raise

    def data(self, *types: str) -> list[str]:
        return self.account().data(*types)

    def account(self) -> Account:
        return Account(self.running.events() if self.running else [], list(self.proxy.arrivals), self.notes)

    def close(self) -> None:
        if self.running is not None:
            self.running.close()
        self.proxy.close()


def until_all(players: list[Player], condition: Callable[[Player], object], timeout: float = 30.0) -> None:
    """Wait for what every client should come to; whoever does not is found out by its own test."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: all(condition(player) for player in players), timeout)


# ── the scenes ────────────────────────────────────────────────────────────────────────────────────────────────


def contents(server: Server, players: list[Player]) -> None:
    """Events of all kinds, then silence."""
    for player in players:
        for case, texts in TEXTS.items():
            for text in texts:
                server.publish(player.channel, text)
            server.publish(player.channel, case, "?event=update")
    until_all(players, lambda player: len(player.data("update")) == len(TEXTS) and player.data("heartbeat"))


def cut(server: Server, players: list[Player]) -> None:
    """The connection is cut: three events are missed, at the second time more than are replayed."""
    for player in players:
        server.publish(player.channel, "before")
    until_all(players, lambda player: player.data("message"))
    for player in players:
        player.notes["cut"] = player.proxy.cut()
        for number in range(3):
            server.publish(player.channel, f"missed {number}")
    until_all(players, lambda player: len(player.data("message")) >= 4)
    for player in players:
        player.proxy.cut()
        for number in range(8):
            server.publish(player.channel, f"lost {number}")
    until_all(players, lambda player: player.data("stream-reset") and "lost 7" in player.data("message"))


def full(server: Server, players: list[Player], occupants: list[SSEClient]) -> None:
    """There is no room at first: each comes at least twice before there is."""
    until_all(players, lambda player: len(player.proxy.arrivals) >= 3)
    for occupant in occupants:
        occupant.close()
    for player in players:
        player.notes["refusals"] = len(player.proxy.arrivals) - 1
    # Every other second, because a stream without a cursor begins with what comes after it was opened.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not all(player.data("message") for player in players):
        for player in players:
            server.publish(player.channel, "there is room")
        until_all(players, lambda player: player.data("message"), 1.0)


def restart(server: Server, players: list[Player]) -> None:
    """A drain: new streams are sent away, then all are ended; the server comes back, and nothing was lost."""
    for player in players:
        server.publish(player.channel, "before")
    until_all(players, lambda player: player.data("message"))
    server.terminate()
    eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 503, 5)
    for player in players:
        player.proxy.cut()      # so that it comes while the server drains
        server.publish(player.channel, "while it drains")
    server.wait(20)
    server.start()
    for player in players:
        server.publish(player.channel, "after")
    until_all(players, lambda player: "after" in player.data("message"))


SCENES: dict[str, dict[str, float]] = {
    "contents": {"SSE_HEARTBEAT": 0.7},
    "cut": {"SSE_RETRY": RETRY, "SSE_REPLAY_LIMIT": 5},
    "full": {"SSE_RETRY": 300, "SSE_MAX_STREAMS": len(KINDS) + 2},
    "restart": {"SSE_RETRY": 300, "SSE_DRAIN_DELAY": 1.5, "SSE_DRAIN_WINDOW": 0.3},
}


class BrowserClient:
    """Chromium's own EventSource, in a page of the service's own origin."""

    def __init__(self, page: Any, url: str) -> None:
        self._page = page
        page.goto(url.partition("/events/")[0] + "/openapi.json")
        page.evaluate(
            """(url) => {
                globalThis.seen = [];
                const source = new EventSource(url);
                for (const type of ["message", "heartbeat", "stream-reset", "update"])
                    source.addEventListener(type, (e) => seen.push([e.type, e.data, e.lastEventId]));
            }""",
            url,
        )

    def events(self) -> list[Seen]:
        return [Seen(*event) for event in self._page.evaluate("seen")]

    def close(self) -> None:
        self._page.goto("about:blank")


class Theatre:
    """Plays a scene when it is first asked about, with all the clients that there are."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self.absent: dict[str, BaseException] = {}
        self.play = cache(self._play)

    def _play(self, scene: str) -> dict[str, Account]:
        query = "" if scene != "contents" else "?since=earliest"
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(Server(**SCENES[scene]))
            occupants = []
            if scene == "full":
                for _ in range(int(SCENES[scene]["SSE_MAX_STREAMS"])):
                    occupants.append(stack.enter_context(SSEClient(server.port, "/events/occupied")))
            players = []
            for number, kind in enumerate(self.kinds.values()):
                try:
                    player = Player(kind, server, number, query)
                except (pytest.skip.Exception, pytest.fail.Exception) as error:
                    self.absent[kind.name] = error
                else:
                    players.append(player)
                    stack.callback(player.close)
            if scene != "full":
                until_all(players, lambda player: player.proxy.arrivals)
                live = f'sse_streams{{state="live"}} {len(players)}.0'
                with contextlib.suppress(AssertionError):
                    eventually(lambda: live in server.request("GET", "/metrics", port=server.health_port).text, 8)
            {"contents": contents, "cut": cut, "restart": restart}.get(
                scene, lambda server, players: full(server, players, occupants)
            )(server, players)
            return {player.kind.name: player.account() for player in players}

    def account(self, scene: str, name: str) -> Account:
        accounts = self.play(scene)
        if name in self.absent:
            raise self.absent[name]
        return accounts[name]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    go = Kind("Go, net/http", GoClient(Path(tmp_path_factory.mktemp("go"))).start, by_hand=True)
    with contextlib.ExitStack() as stack:
        page: Any = None

        def browse(url: str) -> Running:
            nonlocal page
            if page is None:
                page, problems = stack.enter_context(page_of(stack.enter_context(chromium())))
                # A cut or refused connection is what these tests are about, and a page's console tells of it.
                problems.allowed = ["Failed to load resource", "net::ERR_"]
            return BrowserClient(page, url)

        yield Theatre((*KINDS, go, Kind("Chromium's EventSource", browse)))


NAMES = (*(kind.name for kind in KINDS), "Go, net/http", "Chromium's EventSource")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def known(request: pytest.FixtureRequest, name: str) -> Callable[[str], None]:
    """``known(case)`` expects the test to fail where the client is known for it."""

    def expect(case: str) -> None:
        reason = next((kind.limits.get(case) for kind in KINDS if kind.name == name), None)
        if reason:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    return expect


# ── what each of them made of it ──────────────────────────────────────────────────────────────────────────────


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


def test_type_and_id_arrive(theatre: Theatre, name: str) -> None:
    account = theatre.account("contents", name)
    assert account.data("update") == list(TEXTS)
    ids = [event.id for event in account.events if event.type != "heartbeat"]
    assert all(ids) and len(set(ids)) == len(ids)


def test_heartbeats_arrive(theatre: Theatre, name: str) -> None:
    beats = [int(beat) for beat in theatre.account("contents", name).data("heartbeat")]
    assert beats and abs(beats[0] / 1000 - time.time()) < 120


def test_a_cut_connection_is_resumed_where_it_was(theatre: Theatre, name: str) -> None:
    account = theatre.account("cut", name)
    assert account.data("message")[:4] == ["before", "missed 0", "missed 1", "missed 2"]
    assert account.arrivals[0].last_event_id is None
    assert account.arrivals[1].last_event_id == next(event.id for event in account.events if event.data == "before")


def test_the_servers_retry_is_waited_for(theatre: Theatre, name: str, known: Callable[[str], None]) -> None:
    account = theatre.account("cut", name)
    known("retry")
    waited = account.arrivals[1].at - account.notes["cut"]
    assert RETRY_RANGE[0] <= waited <= RETRY_RANGE[1]


def test_a_gap_is_told_and_what_follows_is_whole(theatre: Theatre, name: str) -> None:
    account = theatre.account("cut", name)
    resets = [json.loads(data) for data in account.data("stream-reset")]
    assert [reset["reason"] for reset in resets] == ["too-far"]
    assert account.data("message", "stream-reset")[4:] == [
        account.data("stream-reset")[0],
        *(f"lost {number}" for number in range(3, 8)),
    ]


def test_a_full_server_is_come_back_to_until_there_is_room(theatre: Theatre, name: str) -> None:
    account = theatre.account("full", name)
    assert account.notes["refusals"] >= 2
    assert "there is room" in account.data("message")


def test_a_restart_loses_nothing_and_repeats_nothing(theatre: Theatre, name: str) -> None:
    account = theatre.account("restart", name)
    assert account.data("message") == ["before", "while it drains", "after"]
    assert len(account.arrivals) >= 3
