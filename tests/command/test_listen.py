"""``headwater listen``, in a log and at a service."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from sse.log import open_log
from tests.command.run import COMMAND, Running, environment, headwater
from tests.support.redis_server import RedisServer
from tests.support.scripted_server import ScriptedServer
from tests.support.server import ROOT, Server
from tests.support.wait import eventually

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"


def where(kind: str, service: Server) -> dict[str, str]:
    """The environment for reading the service's log, or listening at its address."""
    return {"SSE_LOG": str(service.env["SSE_LOG"])} if kind == "log" else {"HEADWATER_URL": service.url("")}


@pytest.mark.parametrize("kind", ["log", "url"])
def test_it_goes_on_through_a_restart_of_the_service_without_a_gap_or_a_repeat(
    kind: str, service: Server, channel: str, tmp_path: Path
) -> None:
    local = where("log", service)
    service.publish(channel, "before")
    with Running(tmp_path, "listen", channel, "--since", "earliest", **where(kind, service)) as running:
        running.wait_for(["before"])
        service.publish(channel, "first")
        running.wait_for(["before", "first"])
        service.terminate()
        service.wait()
        if kind == "url":
            running.wait_told("trying again")
        headwater("publish", channel, "meanwhile", **local)
        service.start()
        service.publish(channel, "after")
        running.wait_for(["before", "first", "meanwhile", "after"])
    assert running.told.count("trying again") <= 1


def test_it_goes_on_through_a_restart_of_redis(tmp_path: Path) -> None:
    with RedisServer(appendonly="yes") as redis:
        headwater("publish", "orders", "before", SSE_LOG=redis.url)
        with Running(tmp_path, "listen", "orders", "--since", "earliest", SSE_LOG=redis.url) as running:
            running.wait_for(["before"])
            redis.kill()
            running.wait_told("trying again")
            redis.start()
            headwater("publish", "orders", "after", SSE_LOG=redis.url)
            running.wait_for(["before", "after"])


@pytest.mark.parametrize("kind", ["log", "url"])
def test_as_json_it_prints_all_there_is_and_ends_after_the_count(kind: str, service: Server, channel: str) -> None:
    ids = [service.publish(channel, "two\nlines", "?event=created"), service.publish(channel, "žluť")]
    service.publish(channel, "third")
    done = headwater("listen", channel, "--since", "earliest", "--json", "--count", "2", **where(kind, service))
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"channel": channel, "id": ids[0], "event": "created", "data": "two\nlines"},
        {"channel": channel, "id": ids[1], "data": "žluť"},
    ]
    assert list(json.loads(done.stdout.splitlines()[0])) == ["channel", "id", "event", "data"]


@pytest.mark.parametrize("kind", ["log", "url"])
def test_it_takes_several_channels_some_types_and_begins_after_an_id(
    kind: str, service: Server, channel: str
) -> None:
    one, two = channel, f"{channel}-2"
    first = service.publish(one, "before", "?event=x")
    for name, data, event in ((one, "1", "x"), (two, "2", "y"), ("other", "no", "x"), (two, "no", "z"), (one, "3", "y")):
        service.publish(name, data, f"?event={event}")
    words = (one, two, "-e", "x", "-e", "y", "--since", first, "--count", "3")
    assert headwater("listen", *words, **where(kind, service)).stdout.split() == ["1", "2", "3"]


def test_a_pattern_in_a_log_brings_all_channels_that_begin_so(service: Server, channel: str) -> None:
    for name in ("eu", "us"):
        service.publish(f"{channel}:{name}", name)
        service.publish("other", "no")
    done = headwater("listen", f"{channel}:*", "--since", "10m", "--count", "2", **where("log", service))
    assert done.stdout.split() == ["eu", "us"]


@pytest.mark.parametrize("kind", ["log", "url"])
@pytest.mark.parametrize(("since", "reason"), [("1000", "before-log"), ("99999999999999-0", "unknown")])
def test_what_is_missing_is_told_before_what_there_is(
    kind: str, since: str, reason: str, service: Server, channel: str
) -> None:
    service.publish(channel, "tea")
    plain = headwater("listen", channel, "--since", since, "--count", "1", **where(kind, service))
    assert plain.stdout == "tea\n" and plain.stderr.startswith(f'headwater: stream-reset: {{"reason":"{reason}"')
    full = headwater("listen", channel, "--since", since, "--count", "1", "--json", **where(kind, service))
    reset, event = map(json.loads, full.stdout.splitlines())
    detail = json.loads(reset["data"])
    assert (reset["event"], event["data"]) == ("stream-reset", "tea") and "channel" not in reset
    assert list(detail) == ["reason", "requested", "oldest", "latest"]
    assert detail["requested"] == since and detail["oldest"] is not None


def test_ctrl_c_ends_it_quietly(service: Server, channel: str, tmp_path: Path) -> None:
    with Running(tmp_path, "listen", channel, "--since", "earliest", "--url", service.url("")) as running:
        service.publish(channel, "tea")
        running.wait_for(["tea"])
        running.interrupt()
        assert (running.wait(), running.told) == (130, "")


def test_a_reader_that_has_seen_enough_ends_it_quietly(service: Server, channel: str) -> None:
    for number in range(3):
        service.publish(channel, str(number))
    command = f"{' '.join(COMMAND)} listen {channel} --since earliest --url {service.url('')} | head -n 1"
    with Pacemaker(service, channel):
        done = subprocess.run(["sh", "-c", command], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


class Pacemaker:
    """Events at the service, so that a command whose output nobody reads comes to notice."""

    def __init__(self, service: Server, channel: str) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "publish", channel, "--lines", "--url", service.url("")],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment(), cwd=ROOT,
        )  # fmt: skip
        self._feeder = subprocess.Popen(["sh", "-c", "while sleep 0.2; do echo more; done"], stdout=self._process.stdin)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        for process in (self._feeder, self._process):
            process.kill()
            process.wait(10)
        assert self._process.stdin is not None
        self._process.stdin.close()


def test_it_comes_back_with_the_id_seen_last_when_the_stream_is_cut_or_silent(scripted: ScriptedServer) -> None:
    """The first stream is cut within an event, the second says nothing, the third has the rest."""
    blocks = [b"id: 1-0\nretry: 10\nevent: heartbeat\ndata: 5\n\nid: 2-0\ndata: a\n\nid: 3-0\ndata: lost", b": silent\n\n", b"id: 3-0\ndata: b\n\n"]

    def answer(connection: socket.socket) -> None:
        block = blocks.pop(0)
        connection.sendall(HEAD + block)
        if block.startswith(b":"):
            assert connection.recv(1) == b"", "the client gives up first"

    scripted.script = answer
    # The time-out is too long for a test.
    code = f"from headwater.command import main, remote; remote.SILENCE = 0.3; main({['listen', 'x', '--count', '2', '--url', f'http://127.0.0.1:{scripted.port}']})"
    done = subprocess.run([COMMAND[0], "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "a\nb\n"), done.stderr
    asked = [request.lower() for request in scripted.requests]
    assert [b"last-event-id: 2-0\r\n" in head for head in asked] == [False, True, True], asked


def test_an_envelope_says_which_channel_an_event_came_from(scripted: ScriptedServer) -> None:
    event = {"channel": "a:1", "id": "7-0", "data": "tea"}
    other = {"channel": "no envelope", "id": "somebody's own", "data": "x"}
    stream = f"id: 7-0\nevent: t\ndata: {json.dumps(event)}\n\nid: 8-0\ndata: {json.dumps(other)}\n\n"
    scripted.script = lambda connection: connection.sendall(HEAD + stream.encode())
    done = headwater("listen", "a:*", "b", "--json", "--count", "2", "--url", f"http://127.0.0.1:{scripted.port}")
    assert b"GET /events?channel=a%3A%2A&channel=b&envelope=1 HTTP/1.1" in scripted.requests[0]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"channel": "a:1", "id": "7-0", "event": "t", "data": "tea"},
        {"id": "8-0", "data": json.dumps(other)},
    ]


def test_a_service_that_says_that_there_is_no_more_ends_it(scripted: ScriptedServer) -> None:
    scripted.script = lambda connection: connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    done = headwater("listen", "a", "--url", f"http://127.0.0.1:{scripted.port}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "headwater: closed: no more events will come\n")


def test_in_a_log_it_ends_with_the_last_channel_that_is_closed(service: Server, channel: str, tmp_path: Path) -> None:
    one, two = channel, f"{channel}-2"
    log = where("log", service)
    with Running(tmp_path, "listen", one, two, "-e", "x", "--json", "--since", "earliest", **log) as running:
        for name in (one, two):
            service.publish(name, "tea", "?event=x")
            service.publish(name, "last", "?close=1")
        assert running.wait() == 0
        told = [json.loads(line) for line in running.lines]
    assert [(line["channel"], line["event"]) for line in told] == [
        (one, "x"), (one, "stream-end"), (two, "x"), (two, "stream-end"),
    ]  # fmt: skip
    again = headwater("listen", one, two, **log)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "headwater: closed: no more events will come\n")
    refused = headwater("publish", one, "tea", **log)
    assert refused.returncode == 1 and refused.stderr == f"headwater: the channel {one} is closed\n"


def test_in_a_log_an_erasure_is_told_and_opens_the_channel_again(service: Server, channel: str, tmp_path: Path) -> None:
    log = where("log", service)
    service.publish(channel, "secret")
    with Running(tmp_path, "listen", channel, "--json", "--since", "earliest", **log) as running:
        eventually(lambda: len(running.lines) == 1, 10)
        with closing(open_log(log["SSE_LOG"], retain_events=1000, retain_seconds=3600)) as opened:
            opened.erase(channel)
        service.publish(channel, "tea")
        eventually(lambda: len(running.lines) == 3, 10, lambda: f"{running.lines} {running.told}")
        reset, event = map(json.loads, running.lines[1:])
    assert (json.loads(reset["data"])["reason"], event["data"]) == ("erased", "tea")


def test_what_retention_has_taken_is_told_before_what_is_left(tmp_path: Path) -> None:
    with Server(directory=tmp_path, SSE_RETAIN_EVENTS=2) as service:
        first = service.publish("orders", "1")
        for number in ("2", "3", "4"):
            service.publish("orders", number)
        with closing(sqlite3.connect(service.directory / "h.db")) as database:
            eventually(lambda: database.execute("SELECT count(*) FROM events").fetchone() == (2,), 20)
        done = headwater("listen", "orders", "--since", first, "--count", "2", "--json", **where("log", service))
    reset, *events = map(json.loads, done.stdout.splitlines())
    assert json.loads(reset["data"])["reason"] == "expired" and [event["data"] for event in events] == ["3", "4"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", "is no event stream, but text/html", id="a-page"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404 Not Found", id="not-there"),
        pytest.param(b'HTTP/1.1 403 Forbidden\r\nContent-Length: 22\r\n\r\n{"detail":"not yours"}', "not yours (a key or token", id="not-allowed"),
    ],
)  # fmt: skip
def test_what_trying_again_cannot_mend_ends_it_in_words(answer: bytes, told: str, scripted: ScriptedServer) -> None:
    scripted.script = lambda connection: connection.sendall(answer)
    done = headwater("listen", "a", "--url", f"http://127.0.0.1:{scripted.port}")
    assert done.returncode == 1 and told in done.stderr and len(scripted.requests) == 1, done.stderr


@pytest.mark.parametrize(
    "words", [(), ("a b",), ("_control",), ("_*",), ("a", "--since", "soon"), ("a", "--count", "0")], ids=" ".join
)
def test_a_call_that_cannot_be_meant_gets_status_2(words: tuple[str, ...], log: str) -> None:
    done = headwater("listen", *words, SSE_LOG=log)
    assert done.returncode == 2 and done.stderr.startswith("Usage: headwater listen "), done
