"""What the browsers' own EventSource makes of a channel's end, an erasure, a revocation; and of six streams at once."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest

from tests.conftest import StartServer
from tests.console.event_source import Listen, wait
from tests.support.server import Server

KEY = "a-key-of-more-than-thirty-two-bytes-in-all"

# Connections that a browser opens to one origin over HTTP/1.1.
CONNECTIONS = 6


def token(subject: str, **rights: list[str]) -> str:
    return jwt.encode({"sub": subject, "exp": time.time() + 600, "sse": rights}, KEY, "HS256")


def test_the_end_of_its_channel_ends_it_for_good(listen: Listen, served: Server, request: pytest.FixtureRequest) -> None:
    """It returns once, and fails for good at the 204 (WHATWG HTML §9.2.3)."""
    channel = f"ends-{request.node.callspec.id}"
    page = listen(served, f"/events/{channel}")
    wait(page, "source.readyState === EventSource.OPEN")
    last = served.publish(channel, "the last", "?close=1")
    wait(page, "source.readyState === EventSource.CLOSED")
    message, end = page.evaluate("seen")
    assert message == ["message", "the last", last]
    assert end[:2] == ["stream-end", json.dumps({"channel": channel}, separators=(",", ":"))]
    assert page.evaluate("states") == ["open", "error", "given up"]
    # So does one that begins after the end.
    page.evaluate(
        """(target) => {
            window.second = new EventSource(target);
            second.onopen = () => states.push("second opens");
        }""",
        f"/events/{channel}",
    )
    wait(page, "second.readyState === EventSource.CLOSED")
    assert "second opens" not in page.evaluate("states")
    # A reload that asks for the beginning gets it all, and then the end.
    page = listen(served, f"/events/{channel}?since=earliest")
    wait(page, "source.readyState === EventSource.CLOSED")
    assert page.evaluate("seen") == [message, end]


def test_an_erased_channel_is_told_and_goes_on(listen: Listen, served: Server, request: pytest.FixtureRequest) -> None:
    channel = f"erased-{request.node.callspec.id}"
    page = listen(served, f"/events/{channel}")
    wait(page, "source.readyState === EventSource.OPEN")
    served.publish(channel, "personal")
    wait(page, "seen.length === 1")
    erased = served.request("DELETE", f"/events/{channel}")
    assert erased.status == 200
    wait(page, "seen.length === 2")
    kind, data, identity = page.evaluate("seen[1]")
    assert kind == "stream-reset" and json.loads(data)["reason"] == "erased" and json.loads(data)["channel"] == channel
    assert identity == erased.json()["through"]
    served.publish(channel, "after")
    wait(page, "seen.length === 3")
    assert page.evaluate("states") == ["open"]


def test_revoked_streams_resume_unless_their_subject_was_named(listen: Listen, start_server: StartServer) -> None:
    server = start_server(SSE_JWT_KEY=KEY, SSE_JWT_ALGORITHMS="HS256", SSE_RETRY=300)
    manager = {"Authorization": f"Bearer {token('manager', manage=['*'], publish=['*'])}"}
    page = listen(server, f"/events/members?access_token={token('alice', subscribe=['*'])}")
    wait(page, "source.readyState === EventSource.OPEN")
    assert server.request("DELETE", "/streams?channel=members", headers=manager).status == 202
    wait(page, "states.includes('error')")
    # Before or after it returns.
    server.publish("members", "still a member", Authorization=manager["Authorization"])
    wait(page, "seen.length === 1 && states.at(-1) === 'open'")
    assert server.request("DELETE", "/streams?subject=alice", headers=manager).status == 202
    wait(page, "source.readyState === EventSource.CLOSED")
    assert page.evaluate("states") == ["open", "error", "open", "error", "given up"]
    assert page.evaluate("seen.map((e) => e[1])") == ["still a member"]


def test_six_streams_take_all_of_a_browsers_connections(
    listen: Listen, served: Server, request: pytest.FixtureRequest
) -> None:
    """Whatever else the page asks of the same origin waits until one of them ends. One stream of many channels does not
    have this limit, nor has HTTP/2."""
    name = f"six-{request.node.callspec.id}"
    page = listen(served, f"/events/{name}:0")
    page.evaluate(
        """([name, count]) => {
            window.sources = [source];
            window.beats = new Array(count + 1).fill(0);
            window.follow = (one, i) => one.addEventListener("heartbeat", () => beats[i]++);
            for (let i = 1; i <= count; i++) sources.push(new EventSource(`/events/${name}:${i}`));
            sources.forEach(follow);
        }""",
        [name, CONNECTIONS],
    )
    six = f"beats.slice(0, {CONNECTIONS})"
    wait(page, f"{six}.every((count) => count > 0)")
    page.evaluate(
        """(name) => {
            window.published = 0;
            fetch(`/events/${name}:0`, {method: "POST", body: "x"}).then((answer) => (window.published = answer.status));
            window.before = [...beats];
        }""",
        name,
    )
    # Two more heartbeats later, a second, neither the seventh stream nor the request has got through.
    wait(page, f"{six}.every((count, i) => count > before[i] + 1)")
    assert page.evaluate("[published, sources.map((one) => one.readyState)]") == [0, [1] * CONNECTIONS + [0]]
    page.evaluate("sources[1].close(), sources[2].close()")
    wait(page, f"published === 201 && sources[{CONNECTIONS}].readyState === EventSource.OPEN && seen.length === 1")
    # One stream can have all of these channels.
    page = listen(served, "/events?" + "&".join(f"channel={name}:{i}" for i in range(CONNECTIONS + 1)))
    wait(page, "source.readyState === EventSource.OPEN")
    for i in range(CONNECTIONS + 1):
        assert _published_from(page, f"{name}:{i}")
    wait(page, f"seen.length === {CONNECTIONS + 1}")


def _published_from(page: Any, channel: str) -> bool:
    page.evaluate(
        """(channel) => {
            window.published = 0;
            fetch(`/events/${channel}`, {method: "POST", body: "x"}).then((answer) => (window.published = answer.status));
        }""",
        channel,
    )
    wait(page, "published !== 0")
    return bool(page.evaluate("published === 201"))
