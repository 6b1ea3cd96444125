"""A case, the settings it runs with, and the requests that many cases send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.live.raw.steps import Step, Window


@dataclass(frozen=True)
class Profile:
    """Settings that some cases share, and so one server."""

    name: str
    env: Mapping[str, Any]


# Seconds. Far enough apart to tell from the moment of an end which of them it was. WRITE is longer than READ because
# net/http counts its WriteTimeout from the end of the header: a 408 could not be written any more.
HEADER, READ, WRITE, IDLE = 0.6, 1.6, 2.2, 3.0
SLACK = 0.9  # two cores, a hundred conversations: an end may come this much late


def due(seconds: float, slack: float = SLACK) -> Window:
    """The window of an end that is due after so many seconds."""
    return Window(seconds - 0.05, seconds + slack)


def _profile(name: str, header: float, read: float, write: float, idle: float, **more: str | float) -> Profile:
    return Profile(
        name,
        {
            "SSE_READ_HEADER_TIMEOUT": header,
            "SSE_READ_TIMEOUT": read,
            "SSE_WRITE_TIMEOUT": write,
            "SSE_IDLE_TIMEOUT": idle,
            **more,
        },
    )


SHORT = _profile("short", HEADER, READ, WRITE, IDLE)
OFF = _profile("off", 0, 0, 0, 0, SSE_KEEPALIVE_REQUESTS=0, SSE_SERVER_HEADER="")
READ_ONLY = _profile("only the read time-out", 0, READ, 0, 0, SSE_SERVER_HEADER="acme/2 (test)")
HEADER_ONLY = _profile("only the header time-out", HEADER, 0, 0, 0, SSE_KEEPALIVE_REQUESTS=1000)


@dataclass(frozen=True)
class Differs:
    """net/http does otherwise, on purpose of ours: why, and what it does instead.

    Its steps run against it, so that a mark which is no longer true shows.
    """

    reason: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    :param name: what happens, and the test's id.
    :param steps: done one after the other on a new connection.
    :param go: None where net/http must do the same.
    :param small_buffers: the client's receive buffer and segments are small: the server's writes stall soon.
    """

    name: str
    steps: tuple[Step, ...]
    profile: Profile = SHORT
    go: Differs | None = None
    small_buffers: bool = False


def request(
    method: str,
    target: str,
    *headers: str,
    body: bytes = b"",
    version: str = "1.1",
    host: str | None = "localhost",
) -> bytes:
    """A request's bytes; ``Content-Length`` is the caller's to give."""
    lines = [f"{method} {target} HTTP/{version}", *([f"Host: {host}"] if host else []), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def post(channel: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """A publish request, complete."""
    length = f"Content-Length: {len(body)}"
    return request("POST", f"/events/{channel}", length, *headers, body=body, version=version)


#: An ordinary request whose connection stays open.
PAGE = request("GET", "/openapi.json")
#: One whose answer says ``Connection: close``.
PROBE = request("GET", "/healthz")
