"""``headwater publish``, into a log and to a service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.command.run import Running, headwater
from tests.support.redis_server import RedisServer
from tests.support.scripted_server import ScriptedServer
from tests.support.server import Server
from tests.support.sse_client import SSEClient

KEY = "k" * 32


def where(kind: str, service: Server) -> dict[str, str]:
    """The environment for publishing straight into the service's log, or by its address."""
    return {"SSE_LOG": str(service.env["SSE_LOG"])} if kind == "log" else {"HEADWATER_URL": service.url("")}


@pytest.mark.parametrize("kind", ["log", "url"])
@pytest.mark.parametrize(
    ("words", "stdin", "data"),
    [
        pytest.param(('{"item":1}',), "", '{"item":1}', id="an-argument"),
        pytest.param((), "tea\n", "tea", id="standard-input"),
        pytest.param(("-",), "two\nlines\r\n", "two\nlines", id="standard-input-by-its-sign"),
        pytest.param(("",), "", "", id="nothing-is-an-event-too"),
        pytest.param(("žluť ☕",), "", "žluť ☕", id="any-letters"),
    ],
)
def test_an_event_reaches_a_listener_with_the_id_that_is_printed(
    kind: str, words: tuple[str, ...], stdin: str, data: str, service: Server, channel: str
) -> None:
    with SSEClient(service.port, f"/events/{channel}") as client:
        client.next_event()
        done = headwater("publish", channel, *words, "--event", "created", stdin=stdin, **where(kind, service))
        got = client.next_message()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{got.id}\n", "")
    assert (got.data, got.event) == (data, "created")


@pytest.mark.parametrize("kind", ["log", "url"])
def test_each_line_is_published_as_it_arrives(kind: str, service: Server, channel: str, tmp_path: Path) -> None:
    with (
        SSEClient(service.port, f"/events/{channel}") as client,
        Running(tmp_path, "publish", channel, "--lines", **where(kind, service)) as running,
    ):
        client.next_event()
        for line in (b"one\n", b"two\r\n", b"\n"):
            running.stdin.write(line)
            running.stdin.flush()
            assert client.next_message(10).data == line.decode().strip()
        running.stdin.close()
        assert (running.wait(), len(running.lines)) == (0, 3)


@pytest.mark.parametrize("kind", ["log", "url"])
def test_a_key_makes_a_repeated_call_harmless(kind: str, service: Server, channel: str) -> None:
    def call(data: str) -> tuple[int, str, str]:
        done = headwater("publish", channel, data, "--key", "order-7", **where(kind, service))
        return done.returncode, done.stdout, done.stderr

    first = call("tea")
    assert first[0] == 0 and call("tea") == first
    status, printed, told = call("coffee")
    assert (status, printed) == (1, "") and re.fullmatch("headwater: .*idempotency.*\n", told, re.IGNORECASE)


def test_the_log_and_the_service_know_the_same_keys(service: Server, channel: str) -> None:
    ids = {headwater("publish", channel, "tea", "--key", "k", **where(kind, service)).stdout for kind in ("log", "url")}
    assert len(ids) == 1


def test_it_waits_for_a_service_that_is_away_and_stores_the_event_once(
    service: Server, channel: str, tmp_path: Path
) -> None:
    service.terminate()
    service.wait()
    with Running(tmp_path, "publish", channel, "tea", "--url", service.url("")) as running:
        service.start()
        assert running.wait() == 0
        (printed,) = running.lines
    service.publish(channel, "next")
    with SSEClient(service.port, f"/events/{channel}?since=earliest") as client:
        assert (client.next_message().id, client.next_message().data) == (printed, "next")


def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(scripted: ScriptedServer) -> None:
    answers = [
        b"",
        b'HTTP/1.1 503 Away\r\nRetry-After: 0\r\nContent-Length: 18\r\n\r\n{"stored":"no"}   ',
        b'HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{"id":"1-0"}',
    ]
    scripted.script = lambda connection: connection.sendall(answers.pop(0))
    done = headwater("publish", "a", "tea", "--url", f"http://127.0.0.1:{scripted.port}/prefix/")
    assert (done.returncode, done.stdout) == (0, "1-0\n"), done.stderr
    keys = {re.search(rb"(?im)^idempotency-key: (\S+)", request)[1] for request in scripted.requests}  # type: ignore[index]
    assert len(scripted.requests) == 3 and len(keys) == 1
    assert all(request.startswith(b"POST /prefix/events/a HTTP/1.1\r\n") for request in scripted.requests)


def test_what_stays_away_is_told_with_what_is_known_and_how_to_repeat() -> None:
    done = headwater("publish", "a", "tea", "--url", "http://127.0.0.1:1", "--timeout", "0.5", "--key", "k7")
    assert done.returncode == 1 and done.stderr == (
        "headwater: no answer from http://127.0.0.1:1: Connection refused; it is not stored (--key k7 repeats it safely)\n"
    )


@pytest.mark.parametrize("words", [("publish", "a", "tea"), ("listen", "a")], ids=["publish", "listen"])
def test_a_redirect_does_not_get_the_token(words: tuple[str, ...], scripted: ScriptedServer) -> None:
    place = f"http://127.0.0.1:{scripted.port}"
    scripted.script = lambda connection: connection.sendall(
        f"HTTP/1.1 302 There\r\nLocation: {place}/there\r\nContent-Length: 0\r\n\r\n".encode()
    )
    done = headwater(*words, "--url", place, HEADWATER_TOKEN=KEY)
    assert (done.returncode, len(scripted.requests)) == (1, 1)
    assert done.stderr == f"headwater: {place} redirects to {place}/there: give that as --url\n"


def test_the_key_is_taken_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    with Server(SSE_PUBLISH_KEY=KEY) as server:
        refused = headwater("publish", "a", "tea", "--url", server.url(""))
        assert refused.returncode == 1 and "HEADWATER_TOKEN" in refused.stderr and " 401 " in refused.stderr
        for words, env in ((("--token-file", str(file)), {}), ((), {"HEADWATER_TOKEN": KEY}), ((), {"HEADWATER_TOKEN_FILE": str(file)})):
            done = headwater("publish", "a", "tea", "--url", server.url(""), *words, **env)
            assert done.returncode == 0, done.stderr


def test_into_redis(tmp_path: Path) -> None:
    with RedisServer() as redis, Server(SSE_LOG=redis.url) as server, SSEClient(server.port, "/events/a") as client:
        client.next_event()
        done = headwater("publish", "a", "tea", SSE_LOG=redis.url)
        assert client.next_message().id == done.stdout.strip()


def test_a_log_that_is_made_by_this_is_named(tmp_path: Path) -> None:
    first, second = (headwater("publish", "a", "tea", cwd=tmp_path) for _ in range(2))
    assert first.stderr == f"headwater: a new log is made at {tmp_path}/var/headwater.db (SSE_LOG)\n"
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")


@pytest.mark.parametrize(
    ("words", "env", "status", "told"),
    [
        pytest.param(("a b", "tea"), {}, 2, "channel: must be", id="no-channel"),
        pytest.param(("_stats", "tea"), {}, 2, "reserved", id="a-reserved-channel"),
        pytest.param(("a", "tea", "-e", "heartbeat"), {}, 2, "heartbeat", id="a-type-of-the-services"),
        pytest.param(("a", "tea", "--lines"), {}, 2, "--lines", id="data-and-lines"),
        pytest.param(("a", "tea"), {"SSE_LOG": "memory:"}, 1, "use --url", id="a-log-in-memory"),
        pytest.param(("a", "tea"), {"SSE_LOG": "sqlite:////proc/no/log.db"}, 1, "/proc/no", id="a-log-that-cannot-be"),
        pytest.param(("a", "tea"), {"SSE_RETRY": "soon", "PORT": "0x"}, 2, "headwater: SSE_RETRY='soon'", id="bad-settings"),
        pytest.param(("a", "x" * 11), {"SSE_MAX_EVENT_BYTES": "10"}, 1, "at most 10 bytes", id="too-large"),
        pytest.param(("a", "tea", "--url", "localhost"), {}, 1, "such as http://localhost:8080", id="no-address"),
        pytest.param(("a", "tea", "--url", "http://me:secret@h"), {}, 1, "--token-file", id="a-password-in-the-address"),
        pytest.param(("a", "tea", "--token-file", "/nowhere"), {}, 2, "No such file", id="no-such-file"),
        pytest.param(("a",), {"STDIN": "\xff"}, 1, "byte 0", id="not-text"),
    ],
)
def test_what_cannot_be_published_is_refused_in_words(
    words: tuple[str, ...], env: dict[str, str], status: int, told: str, log: str
) -> None:
    stdin = env.get("STDIN", "").encode("latin-1")
    done = headwater("publish", *words, stdin=stdin, **{"SSE_LOG": log, **env})
    assert (done.returncode, done.stdout) == (status, "") and told in done.stderr, done
    assert "Traceback" not in done.stderr and "secret" not in done.stderr
