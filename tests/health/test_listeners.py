"""Which listener is health's, by its address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

from health import Health
from health.listeners import Name, accepted_by, of_health
from health.signs import board

MAIN: Name = ("127.0.0.1", 8080)
PROBES: Name = ("127.0.0.1", 8081)
UNIX: Name = "/run/headwater.sock"
IPV6: Name = ("::", 8081, 0, 0)


@pytest.mark.parametrize(
    ("names", "port", "expected"),
    [
        pytest.param([MAIN, PROBES], 8081, {PROBES}, id="by-its-port"),
        pytest.param([PROBES, MAIN], 8081, {PROBES}, id="whatever-the-order"),
        pytest.param([UNIX, PROBES], 8081, {PROBES}, id="beside-a-unix-socket"),
        pytest.param([MAIN, PROBES, IPV6], 8081, {PROBES, IPV6}, id="on-two-addresses"),
        pytest.param([MAIN, PROBES], 0, {PROBES}, id="any-free-port-is-the-last"),
        pytest.param([UNIX, PROBES], 0, {PROBES}, id="any-free-port-beside-a-unix-socket"),
        pytest.param([MAIN, UNIX], 0, {UNIX}, id="the-last-one-is-a-unix-socket"),
        pytest.param([MAIN, UNIX], 8081, set(), id="none-has-the-port"),
        pytest.param([MAIN, PROBES], None, set(), id="not-configured"),
        pytest.param([PROBES], 8081, set(), id="there-is-one-for-everything"),
        pytest.param([UNIX], 0, set(), id="there-is-one-unix-socket-for-everything"),
        pytest.param([PROBES, IPV6], 8081, set(), id="all-have-the-port"),
    ],
)
def test_of_health_finds_healths_listeners(names: list[Name], port: int | None, expected: set[Name]) -> None:
    assert of_health(tuple(names), port) == expected


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        pytest.param(PROBES, True, id="the-bound-address"),
        pytest.param(MAIN, False, id="another-port"),
        pytest.param(("10.0.0.7", 8081), False, id="the-same-port-on-another-address"),
        pytest.param(("::1", 9090, 0, 0), True, id="below-a-wildcard"),
        pytest.param("", False, id="a-unix-socket"),
        pytest.param(None, False, id="unknown"),
    ],
)
def test_a_connection_belongs_to_the_listener_that_accepted_it(local: Name | None, expected: bool) -> None:
    assert accepted_by(local, [PROBES, ("::", 9090, 0, 0), UNIX]) is expected


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connections that a Unix listener and a TCP listener have accepted."""
    unix, tcp = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    with unix, tcp, socket.socket(socket.AF_UNIX) as first, socket.create_connection(tcp.getsockname()):
        first.connect(unix.getsockname())
        with unix.accept()[0] as by_unix, tcp.accept()[0] as by_tcp:
            yield by_unix, by_tcp


@pytest.mark.parametrize("configured", ["its-port", "any-free-port"])
def test_the_host_and_proxy_headers_do_not_decide_which_listener_a_request_came_to(
    pair: tuple[socket.socket, socket.socket], configured: str
) -> None:
    """gunicorn takes SERVER_PORT from them."""
    by_unix, by_tcp = pair
    port = by_tcp.getsockname()[1]
    app = flask.Flask("listeners")
    app.config["HEALTH_PORT"] = port if configured == "its-port" else 0
    health = Health(app).current
    health.listen([by_unix.getsockname(), by_tcp.getsockname()])

    def on_health_port(sock: socket.socket, says: object) -> bool | None:
        environ: dict[str, Any] = {"gunicorn.socket": sock, "SERVER_NAME": "x", "SERVER_PORT": str(says)}
        return health.on_health_port(environ)

    assert on_health_port(by_unix, port) is False
    assert on_health_port(by_tcp, 80) is True
    by_tcp.close()
    assert on_health_port(by_tcp, port) is False, "the connection is closed"


def test_a_single_listener_serves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    app = flask.Flask("listeners")
    app.config["HEALTH_PORT"] = 8081
    health = Health(app).current
    monkeypatch.setattr(board, "in_worker", lambda: True)
    monkeypatch.setattr(board.process, "listening", (MAIN,))
    assert health.on_health_port({"SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080"}) is None
    monkeypatch.setattr(board.process, "listening", (MAIN, PROBES))
    assert health.on_health_port({"SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080"}) is False
    assert health.on_health_port({"SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8081"}) is True
