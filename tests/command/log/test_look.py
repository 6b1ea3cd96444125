"""``headwater log channels``, ``show`` and ``erase``, on each engine."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sse.events.model import Event, format_id
from sse.log import Log
from tests.command.run import COMMAND, environment, headwater
from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient

Open = Callable[[str], Log]


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def fill(log: Log) -> list[str]:
    """Five events in three channels, one of which is closed; their ids, with that of the end."""
    events = [Event("a", "one"), Event("b:1", "žluť"), Event("a", "two", "created", 500), Event("b:2", "x\x1b[2J\ny")]
    positions = [*log.append(events), *log.append([Event("a", "three")]), *log.append([], close=["b:1"])]
    return [format_id(position) for position in positions]


def test_channels_are_listed_with_what_they_hold(url: str, opened: Open) -> None:
    ids = fill(opened(url))
    done = headwater("log", "channels", "--json", SSE_LOG=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == [
        {"channel": "a", "events": 3, "bytes": 11, "oldest": ids[0], "latest": ids[4], "closed": False},
        {"channel": "b:1", "events": 1, "bytes": 6, "oldest": ids[1], "latest": ids[1], "closed": True},
        {"channel": "b:2", "events": 1, "bytes": 7, "oldest": ids[3], "latest": ids[3], "closed": False},
    ]
    for prefix in ("b:", "b:*"):
        head, *rows = headwater("log", "channels", prefix, SSE_LOG=url).stdout.splitlines()
        assert head.split() == ["CHANNEL", "EVENTS", "BYTES", "OLDEST", "NEWEST"]
        assert [(row.split()[0], row.endswith("closed")) for row in rows] == [("b:1", True), ("b:2", False)]


def test_more_channels_than_a_page_are_listed(url: str, opened: Open) -> None:
    names = [f"c{n:04}" for n in range(2300)]
    opened(url).append([Event(name, "x") for name in names])
    assert [row["channel"] for row in lines(headwater("log", "channels", "--json", SSE_LOG=url).stdout)] == names
    assert len(headwater("log", "channels", SSE_LOG=url).stdout.splitlines()) == 2301


def test_events_are_shown_as_the_log_has_them(url: str, opened: Open) -> None:
    ids = fill(opened(url))
    done = headwater("log", "show", "--json", SSE_LOG=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == [
        {"id": ids[0], "channel": "a", "data": "one"},
        {"id": ids[1], "channel": "b:1", "data": "žluť"},
        {"id": ids[2], "channel": "a", "event": "created", "retry": 500, "data": "two"},
        {"id": ids[3], "channel": "b:2", "data": "x\x1b[2J\ny"},
        {"id": ids[4], "channel": "a", "data": "three"},
        {"id": ids[5], "channel": "b:1", "event": "stream-end", "data": '{"channel":"b:1"}'},
    ]
    shown = headwater("log", "show", SSE_LOG=url).stdout
    assert "\x1b" not in shown and r"x\x1b[2J\ny" in shown and len(shown.splitlines()) == 7


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(("-n", "2"), [4, 5], id="the newest"),
        pytest.param(("-n", "2", "--since", "earliest"), [0, 1], id="the oldest"),
        pytest.param(("--since", "{2}"), [3, 4, 5], id="after an id"),
        pytest.param(("a",), [0, 2, 4], id="a channel"),
        pytest.param(("b:*", "-n", "1"), [5], id="a pattern"),
        pytest.param(("a", "b:2", "--since", "{0}", "-n", "2"), [2, 3], id="several"),
        pytest.param(("nobody",), [], id="none"),
    ],
)
def test_which_events_are_shown_can_be_said(words: tuple[str, ...], expected: list[int], url: str, opened: Open) -> None:
    ids = fill(opened(url))
    done = headwater("log", "show", "--json", *(word.format(*ids) for word in words), SSE_LOG=url)
    assert [line["id"] for line in lines(done.stdout)] == [ids[n] for n in expected]


def test_erasing_takes_the_events_out_and_opens_the_channel(url: str, opened: Open) -> None:
    log = opened(url)
    fill(log)
    done = headwater("log", "erase", "b:1", "--yes", SSE_LOG=url)
    marker = log.read(["b:1"], 0, 10, 1000)
    assert [record.event for record in marker] == ["stream-reset"] and log.closed(["b:1"]) == {}
    assert (done.returncode, done.stdout) == (0, f"erased 1 events of b:1, through {format_id(marker[0].position)}\n")
    assert headwater("log", "erase", "b:1", "--yes", SSE_LOG=url).stdout.startswith("erased 0 events of b:1")


def test_erasing_needs_a_yes_where_nobody_can_be_asked(url: str, opened: Open) -> None:
    log = opened(url)
    fill(log)
    done = headwater("log", "erase", "a", stdin="y\n", SSE_LOG=url)
    assert done.returncode == 2 and "--yes" in done.stderr and len(log.read(["a"], 0, 10, 1000)) == 3


@pytest.mark.parametrize(("answer", "status", "left"), [("y", 0, 1), ("n", 1, 3), ("", 1, 3)])
def test_erasing_asks_on_a_terminal_and_says_what_would_go(answer: str, status: int, left: int, url: str, opened: Open) -> None:
    log = opened(url)
    fill(log)
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "log", "erase", "a"], env=environment(SSE_LOG=url), cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1000)
        assert b"Erase a, 3 events of 11 bytes, " in shown
        os.write(ours, answer.encode() + b"\n")
        assert running.wait(20) == status
    os.close(ours)
    assert len(log.read(["a"], 0, 10, 1000)) == left


def test_a_running_services_stream_is_told_of_the_erasure() -> None:
    with Server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as server, SSEClient(server.port, "/events/a") as client:
        client.next_event()
        server.publish("a", "one")
        assert client.next_message().data == "one"
        assert headwater("log", "erase", "a", "--yes", SSE_LOG=str(server.env["SSE_LOG"])).returncode == 0
        assert json.loads(client.events_until(lambda event: event.event == "stream-reset")[-1].data)["reason"] == "erased"


@pytest.mark.parametrize("words", [("channels",), ("show",), ("erase", "a", "--yes")])
def test_where_there_is_no_log_none_is_made(words: tuple[str, ...], tmp_path: Path) -> None:
    done = headwater("log", *words, SSE_LOG=f"sqlite:///{tmp_path}/none/h.db")
    assert (done.returncode, done.stderr) == (1, f"headwater: there is no log at {tmp_path}/none/h.db (SSE_LOG)\n")
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_reached_is_told_in_a_line(tmp_path: Path) -> None:
    done = headwater("log", "channels", SSE_LOG="redis://127.0.0.1:1/0")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("headwater: Redis cannot be reached")
    (tmp_path / "h.db").write_text("something else")
    done = headwater("log", "show", SSE_LOG=f"sqlite:///{tmp_path}/h.db")
    assert done.returncode == 1 and done.stderr.startswith(f"headwater: {tmp_path}/h.db: damaged")
