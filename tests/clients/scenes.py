"""What the clients of tests/clients go through: each scene runs once, for all of them at the same time.

Every client has its own channel, and its own relay, which can cut the connection and notes its requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest

from tests.clients.kinds import KINDS, Kind, Program, Running, Seen
from tests.clients.proxy import Arrival, Proxy
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

# Milliseconds: longer than some clients' own delay (1 s), shorter than others' (3 s and more), both by more than a busy
# machine is late.
RETRY = 1700

TEXTS = {
    "lines": ["a\nb", "a\n\n\nb", "one\r\ntwo\rthree", "{\n:\n}"],
    "empty lines": ["\n", "\nbegins with one", "ends with one\n", "with two\n\n"],
    "spaces": [" leading", "  two of them", "  {\n    deep\n  }"],
    "text": [": colon", "data: data", "trailing ", "a\u2028b\u0085c"],
    "byte order mark": ["\ufeffmark"],
    "unicode": ["žluťoučký kůň 🐎", "🏔️👩‍👩‍👧‍👦", "日本語", "\U0010ffff", "e\u0301 é", "\x01 \x7f"],
    "NUL": ["a\x00b"],
    "large": ["x" * 65536, "é" * 32768, "🐎" * 16384, "\n".join(["line"] * 13000)],
}


class Account(NamedTuple):
    """What one client saw in a scene, and what its relay saw. published: the ids of its events, by their text."""

    events: list[Seen]
    arrivals: list[Arrival]
    notes: dict[str, Any]
    published: dict[str, str]

    def data(self, *types: str) -> list[str]:
        return [event.data for event in self.events if event.type in types]


class Player:
    """One client in a scene."""

    def __init__(self, kind: Kind, server: Server, number: int, query: str) -> None:
        self.kind = kind
        self.notes: dict[str, Any] = {}
        self.running: Running | None = None
        self._server = server
        self._channel = f"client{number}"
        self._published: dict[str, str] = {}
        self.proxy = Proxy(server.port, f"/events/{self._channel}{query}", kind.page)

    def publish(self, text: str, query: str = "") -> None:
        data = self.kind.dress(text) if self.kind.dress else text
        self._published[text] = self._server.publish(self._channel, data, query)

    def data(self, *types: str) -> list[str]:
        return self.account().data(*types)

    def account(self) -> Account:
        seen = self.running.events(self.kind.name) if self.running else []
        return Account(seen, list(self.proxy.arrivals), self.notes, self._published)


def until_all(players: Sequence[Player], condition: Callable[[Player], object], timeout: float = 30.0) -> None:
    """Wait until every client is done; the test of one that never is fails later."""
    with contextlib.suppress(AssertionError):
        # Not too often: each look asks the pages.
        eventually(lambda: all(condition(player) for player in players), timeout, interval=0.1)


# ── the scenes ────────────────────────────────────────────────────────────────────────────────────────────────


def contents(server: Server, players: Sequence[Player], occupants: Sequence[SSEClient]) -> None:
    """Events of all kinds, then silence."""
    for player in players:
        for case, texts in TEXTS.items():
            for text in texts:
                player.publish(text)
            player.publish(case, "?event=update")
    until_all(players, lambda player: len(player.data("update")) == len(TEXTS) and len(player.data("heartbeat")) > 1)


def cut(server: Server, players: Sequence[Player], occupants: Sequence[SSEClient]) -> None:
    """Cut the connection three times: before the first event; so that three events are missed; and so that more are
    missed than are replayed. The last event each time says to reconnect soon."""
    for player in players:
        player.notes["cut"] = player.proxy.cut()
        player.publish("unseen", "?retry=200")
    until_all(players, lambda player: player.data("message"))
    for player in players:
        player.proxy.cut()
        for number in range(3):
            player.publish(f"missed {number}", "?retry=200")
    until_all(players, lambda player: len(player.data("message")) >= 4)
    for player in players:
        player.proxy.cut()
        for number in range(8):
            player.publish(f"lost {number}")
    until_all(
        players,
        lambda player: "lost 7" in player.data("message")
        and ("gap" in player.kind.limits or player.data("stream-reset")),
    )


def full(server: Server, players: Sequence[Player], occupants: Sequence[SSEClient]) -> None:
    """Have no room at first, so that each client connects at least twice and misses what is published meanwhile."""
    until_all(players, lambda player: player.proxy.arrivals)
    for player in players:
        player.publish("while there was no room")
    until_all(players, lambda player: len(player.proxy.arrivals) >= 3)
    for player in players:
        player.notes["refusals"] = len(player.proxy.arrivals) - 1
    for occupant in occupants:
        occupant.close()
    until_all(players, lambda player: player.data("message"))


def restart(server: Server, players: Sequence[Player], occupants: Sequence[SSEClient]) -> None:
    """Drain: turn new streams away, end all, and restart the server; nothing is lost."""
    for player in players:
        player.publish("before")
    until_all(players, lambda player: player.data("message"))
    server.terminate()
    eventually(lambda: server.request("GET", "/readyz", port=server.health_port).status == 503, 5)
    for player in players:
        player.proxy.cut()      # so that it arrives while the server drains
        player.publish("while it drains")
    server.wait(20)
    server.start()
    for player in players:
        player.publish("after")
    until_all(players, lambda player: "after" in player.data("message"))


class Scene(NamedTuple):
    """settings: its server's; crowded: all places are taken at first."""

    play: Callable[[Server, Sequence[Player], Sequence[SSEClient]], None]
    settings: Mapping[str, float]
    query: str = ""
    crowded: bool = False


SCENES = {
    "contents": Scene(contents, {"SSE_HEARTBEAT": 0.7}, query="?since=earliest"),
    "cut": Scene(cut, {"SSE_RETRY": RETRY, "SSE_REPLAY_LIMIT": 5}),
    "full": Scene(full, {"SSE_RETRY": 300, "SSE_MAX_STREAMS": len(KINDS) + 2}, crowded=True),
    "restart": Scene(restart, {"SSE_RETRY": 300, "SSE_DRAIN_DELAY": 1.5, "SSE_DRAIN_WINDOW": 0.3}),
}


class Theatre:
    """Runs a scene when it is first asked about, with all available clients."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = programs
        self.absent: dict[str, BaseException] = {}
        self.play = cache(self._play)

    def _play(self, name: str) -> dict[str, Account]:
        scene = SCENES[name]
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(Server(**scene.settings))
            occupants = []
            if scene.crowded:
                for _ in range(int(scene.settings["SSE_MAX_STREAMS"])):
                    occupants.append(stack.enter_context(SSEClient(server.port, "/events/occupied")))
            players: list[Player] = []
            for program in self._there():
                kinds = [kind for kind in program.kinds if scene.play is not contents or kind.dress is None]
                ours = [Player(kind, server, len(players) + at, scene.query) for at, kind in enumerate(kinds)]
                for player in ours:
                    stack.callback(player.proxy.close)
                running = program.start({player.kind.name: player.proxy for player in ours})
                stack.callback(running.close)
                for player in ours:
                    player.running = running
                players += ours
            if not scene.crowded:
                until_all(players, lambda player: player.proxy.arrivals)
                live = f'sse_streams{{state="live"}} {len(players)}.0'
                with contextlib.suppress(AssertionError):
                    eventually(lambda: live in server.request("GET", "/metrics", port=server.health_port).text, 8)
            scene.play(server, players, occupants)
            return {player.kind.name: player.account() for player in players}

    def _there(self) -> list[Program]:
        """Return the programs that can run; all are ready before the first client connects. The last, a browser, takes
        longest and starts in the background."""
        there: list[Program] = []
        for program in reversed(self.programs):
            try:
                program.need()
            except (pytest.skip.Exception, pytest.fail.Exception) as error:
                self.absent |= {kind.name: error for kind in program.kinds}
            else:
                there.insert(0, program)
        return there

    def account(self, scene: str, name: str) -> Account:
        accounts = self.play(scene)
        if name in self.absent:
            raise self.absent[name]
        return accounts[name]
