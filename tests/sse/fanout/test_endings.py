"""Ends and erasures, step by step: many streams at once, what is under way meanwhile, and what stays in memory."""

from __future__ import annotations

import gc
import json
import types
from contextlib import ExitStack
from typing import Any

import pytest

from sse.events.markers import own_event
from sse.events.model import Event
from sse.events.names import CANARY_CHANNEL, CONTROL_CHANNEL
from sse.fanout import endings, passes
from sse.fanout.passes import MAX_CHUNK_BYTES
from sse.streams.group import Subscription
from sse.streams.stream import OWN_CLIENT, State
from sse.streams.window import size_of
from tests.sse.worker_parts import SocketClient, Stepped, numbers
from tests.support.wait import eventually

SECRET = "what-a-person-wants-erased"


@pytest.fixture
def site(closing: ExitStack) -> Stepped:
    return Stepped(closing)


def open_at(site: Stepped, *channels: str, **options: Any) -> SocketClient:
    group = site.hub.join(Subscription(frozenset(channels), **options.pop("form", {})))
    return site.open(options.pop("cursor", site.hub.window.position), group, **options)


def run(site: Stepped) -> None:
    """Do what the fan-out's greenlets have to do."""
    while site.hub.dirty:
        site.fanout.passes.wake()
        site.fanout.passes.run()
    while site.fanout.endings._jobs:
        site.fanout.endings.run()


def close(site: Stepped, *channels: str) -> int:
    position = site.parts.log.append([], close=channels)[-1]
    site.dispatch()
    return position


def erase(site: Stepped, channel: str) -> int:
    position = site.parts.log.erase(channel).through
    site.dispatch()
    return position


def revoke(site: Stepped, **what: str) -> None:
    site.parts.log.append([own_event(CONTROL_CHANNEL, "revoke", json.dumps(what))])
    site.dispatch()


def read_to_end(client: SocketClient) -> list[str | None]:
    eventually(lambda: (client.read(10**6), client.finished)[1], 5)
    return [block.data for block in client.blocks if not block.is_control]


# ── the end of channels ───────────────────────────────────────────────────────────────────────────────────────


def test_a_large_backlog_before_the_end_is_sent_in_full(site: Stepped) -> None:
    client = open_at(site, "a")
    texts = [f"{n}".ljust(MAX_CHUNK_BYTES // 3, ".") for n in range(8)]
    site.parts.log.append([Event("a", text) for text in texts], close=["a"])
    site.dispatch()
    for _ in range(100):
        run(site)
        client.read(10**6)
        site.poll()
    assert read_to_end(client) == texts and client.decoder.terminated
    assert client.blocks[-2].event == "stream-end"


def test_streams_in_every_state_end_with_their_channel(site: Stepped) -> None:
    start = site.hub.window.position
    live, lagging = open_at(site, "a"), open_at(site, "a", send_buffer=1)
    site.append(*["." * 3000] * 4)
    run(site)
    assert (live.stream.state, lagging.stream.state) == (State.LIVE, State.LAGGING)
    replaying = open_at(site, "a", cursor=start, send_buffer=1)
    assert replaying.stream.state is State.REPLAYING
    close(site, "a")
    run(site)
    late = open_at(site, "a", cursor=start)
    for client in (live, lagging, replaying, late):
        eventually(lambda client=client: (client.read(10**6), site.poll(), client.finished)[2], 5)  # type: ignore[misc]
        assert len(client.blocks) == 4 + 1 + 1, "the events, the end, and retry"
        assert client.decoder.terminated


def test_a_channel_that_was_erased_after_its_end_takes_streams_again(site: Stepped) -> None:
    """Its group lives on while the streams that have ended wait for their clients to close."""
    first = open_at(site, "a", "b")
    close(site, "a", "b")
    run(site)
    assert first.stream.state is State.LINGERING
    erase(site, "a")
    again = open_at(site, "a", "b")
    assert again.stream.group is first.stream.group and again.stream.state is State.LIVE
    site.append("new")
    run(site)
    again.read(10**6)
    assert again.blocks[-1].data == "new"


@pytest.mark.parametrize("why", ["end", "revoke"])
def test_many_ends_let_others_run(site: Stepped, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breaths: list[int] = []
    monkeypatch.setattr(endings, "PASS_SLICE", 0.0)
    monkeypatch.setattr(endings, "breathe", lambda: breaths.append(1))
    clients = [open_at(site, "a", owner="ann") for _ in range(10 * endings.CLOCK_EVERY)]
    if why == "end":
        close(site, "a")
    else:
        revoke(site, subject="ann")
    run(site)
    assert {client.stream.state for client in clients} == {State.LINGERING}
    assert len(breaths) == 10


# ── revocation ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("what", "ends"),
    [
        pytest.param({"subject": "ann"}, "ann-a ann-b", id="subject"),
        pytest.param({"channel": "a"}, "ann-a bob-a all", id="channel"),
        pytest.param({"channel": "a*"}, "ann-a bob-a all", id="pattern"),
        pytest.param({"channel": "ab*"}, "all", id="narrower pattern"),
        pytest.param({"channel": "*"}, "ann-a ann-b bob-a all", id="everything"),
        pytest.param({"subject": "ann", "channel": "a"}, "ann-a", id="both"),
        pytest.param({"subject": "ann", "channel": "z"}, "", id="both, and none matches"),
        pytest.param({"request": "r-bob-a"}, "bob-a", id="request"),
        pytest.param({"request": ""}, "", id="an empty request"),
        pytest.param({"subject": ""}, "", id="an empty subject"),
        pytest.param({}, "", id="nothing"),
        pytest.param({"at": 5}, "", id="only a time"),
    ],
)
def test_a_revocation_ends_the_streams_that_match_all_of_it(site: Stepped, what: dict[str, Any], ends: str) -> None:
    clients = {
        "ann-a": open_at(site, "a", owner="ann"),
        "ann-b": open_at(site, "b", owner="ann"),
        "bob-a": open_at(site, "a", owner="bob"),
        "all": open_at(site, "*"),
    }
    for name, client in clients.items():
        client.stream.request_id = f"r-{name}"
    own = open_at(site, CANARY_CHANNEL, client=OWN_CLIENT)
    revoke(site, **what)
    run(site)
    ended = {name for name, client in clients.items() if client.stream.state is not State.LIVE}
    assert ended == set(ends.split())
    assert own.stream.state is State.LIVE
    for name in ended:
        read_to_end(clients[name])
        assert clients[name].decoder.terminated


def test_a_revoked_stream_is_sent_no_more_than_what_had_begun(site: Stepped) -> None:
    start = site.hub.window.position
    site.append(*["." * 3000] * 50)
    slow = open_at(site, "a", cursor=start, send_buffer=1, owner="ann")
    assert slow.stream.state is State.REPLAYING
    revoke(site, subject="ann")
    run(site)
    eventually(lambda: (slow.read(10**6), site.poll(), slow.finished)[2], 5)
    assert slow.decoder.terminated, "a clean end"
    assert len([block for block in slow.blocks if block.data]) < 50


def test_a_stream_that_was_opening_while_it_was_revoked_ends_too(site: Stepped) -> None:
    """Its access was decided before the revocation, so nothing else would end it."""
    group = site.hub.join(Subscription(frozenset({"a"})))
    position = site.hub.window.position
    early = site.open(position, group, owner="ann")
    opened = early.stream.opened
    revoke(site, subject="ann")
    run(site)
    adopt = site.fanout.adopt
    site.fanout.adopt = lambda stream, fd: (setattr(stream, "opened", opened), adopt(stream, fd))  # type: ignore[method-assign, func-returns-value, assignment]
    late = site.open(position, group, owner="ann")
    other = site.open(position, group, owner="bob")
    assert late.stream.state is State.LINGERING and other.stream.state is State.LIVE
    site.fanout.adopt = adopt  # type: ignore[method-assign]
    after = site.open(position, group, owner="ann")
    assert after.stream.state is State.LIVE, "its access was decided afterwards"


# ── erasure ───────────────────────────────────────────────────────────────────────────────────────────────────


def reachable(*roots: object) -> list[object]:
    """Return all objects that are reachable from these, without code and classes."""
    seen: dict[int, object] = {}
    queue: list[object] = list(roots)
    while queue:
        one = queue.pop()
        if id(one) in seen or isinstance(one, (type, types.ModuleType, types.CodeType)):
            continue
        seen[id(one)] = one
        if isinstance(one, types.FunctionType):
            queue += [cell.cell_contents for cell in one.__closure__ or () if cell != types.CellType()]
            continue
        queue += gc.get_referents(one)
    return list(seen.values())


def secrets(*roots: object) -> list[object]:
    secret = SECRET.encode()
    found: list[object] = []
    for one in reachable(*roots):
        if isinstance(one, (bytes, bytearray, memoryview)) and secret in bytes(one):
            found.append(one)
        elif isinstance(one, str) and SECRET in one:
            found.append(one)
    return found


def test_no_byte_of_an_erased_event_stays_in_the_worker(site: Stepped) -> None:
    start = site.hub.window.position
    forms = [{}, {"envelope": True}, {"plain": True}, {"types": frozenset({"x"})}]
    clients = [open_at(site, "a", form=form) for form in forms]
    clients += [open_at(site, "a", "b"), open_at(site, "*"), open_at(site, "a", send_buffer=1)]
    site.append(*[f"{n} {SECRET} \r\n{'.' * 3000}" for n in range(20)])
    run(site)
    clients += [open_at(site, "a", cursor=start, send_buffer=1), open_at(site, "a", cursor=start)]  # pages
    site.append(f"{SECRET}, waiting for a pass")
    kept = site.parts.log.append([Event("b", "this stays")])
    site.dispatch()
    del site.parts.log.inner._records[:-1]  # type: ignore[attr-defined]  # only the worker is looked at
    assert len(secrets(site.hub, site.fanout)) > 20, "so the search finds what there is"
    site.parts.log.erase("a")
    site.dispatch()
    assert not secrets(site.hub, site.fanout)
    page = site.hub.window.read({"a", "b"}, None, 0, site.hub.window.position, 10**9)
    assert [(frame.channel, frame.event) for frame in page.frames] == [("b", None), ("a", "stream-reset")]
    assert page.frames[0].position == kept[0]


def test_a_page_that_was_read_from_the_log_while_its_channel_was_erased_is_read_again(closing: ExitStack) -> None:
    site = Stepped(closing, SSE_WINDOW_BYTES=1024)
    start = site.hub.window.position
    site.append(*[f"{SECRET} {'.' * 400}"] * 8)
    client = open_at(site, "a", cursor=start)

    def meanwhile(*_: object) -> None:
        site.parts.log.on_read = None
        erase(site, "a")

    site.parts.log.on_read = meanwhile
    site.fanout.catchup.read_log()
    run(site)
    client.read(10**6)
    assert [block.event for block in client.blocks] == ["stream-reset"]
    assert client.stream.state is State.LIVE


def test_a_pass_that_is_under_way_sends_an_erased_event_to_no_more_streams(
    site: Stepped, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [open_at(site, "a") for _ in range(6)]
    breaths: list[int] = []

    def others() -> None:
        breaths.append(1)
        if len(breaths) == 2:
            erase(site, "a")

    monkeypatch.setattr(passes, "PASS_SLICE", 0.0)
    monkeypatch.setattr(passes, "CLOCK_EVERY", 1)
    monkeypatch.setattr(passes, "breathe", others)
    site.append(SECRET)
    run(site)
    site.poll()
    run(site)
    got = []
    for client in clients:
        client.read(10**6)
        got.append([block.data == SECRET for block in client.blocks])
        assert client.blocks[-1].event == "stream-reset"
    assert got == [[True, False]] * 2 + [[False]] * 4
    assert {client.stream.state for client in clients} == {State.LIVE}, "all go on"
    assert sum(client.stream.events + client.stream.group.events for client in clients) == 2, "markers do not count"


def test_only_streams_with_bytes_of_the_erased_channel_are_cut(site: Stepped) -> None:
    clients = {
        name: open_at(site, *channels.split(), send_buffer=1)
        for name, channels in {"own": "a", "wide": "a*", "two": "a b", "other": "b"}.items()
    }
    for channel in "ab":
        site.parts.log.append([Event(channel, "." * 3000)] * 3)
        site.dispatch()
        run(site)
    idle = open_at(site, "a")
    assert {client.stream.state for client in clients.values()} == {State.LAGGING}
    erase(site, "a")
    run(site)
    states = {name: client.stream.state for name, client in clients.items()}
    assert states == dict.fromkeys(("own", "wide", "two"), State.CLOSED) | {"other": State.LAGGING}
    assert idle.stream.state is State.LIVE
    assert [reason for reason, _ in site.parts.ended] == ["erased"] * 3


def test_erasing_a_channel_drops_its_frames_from_the_window_and_no_others(site: Stepped) -> None:
    for number in numbers(1, 30):
        site.parts.log.append([Event("abc"[int(number) % 3], number)])
    site.dispatch()
    size, count = site.hub.window.size, len(site.hub.window)
    through = erase(site, "a")
    window = site.hub.window
    assert len(window) == count - 10 + 1
    assert window.size < size and window.size == sum(320 + size_of(item) for item in window._items)
    page = window.read({"*"}, None, 0, through, 10**9)
    assert [frame.text() for frame in page.frames[:-1]] == [n for n in numbers(1, 30) if int(n) % 3]
    assert window.newest("a") is page.frames[-1]


def test_a_marker_that_cannot_be_obeyed_empties_the_window(site: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not pass again, and nothing that it meant to erase may be served."""
    client = open_at(site, "a")
    site.append(SECRET)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(site.hub.ends, "passed", fail)
    through = site.parts.log.erase("a").through
    with pytest.raises(ZeroDivisionError):
        site.dispatch()
    assert len(site.hub.window) == 0 and site.hub.window.position == through
    run(site)
    assert read_to_end(client) == []
    assert not secrets(site.hub, site.fanout)
