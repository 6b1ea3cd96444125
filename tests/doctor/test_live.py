"""The live checks against real servers and proxies: they find each planted fault, and no other."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from health.doctor import cli
from health.doctor.live import wire
from tests.doctor.others import go_server, haproxy, node_server, plain_app, silent_server
from tests.failure_modes.nginx_defaults import nginx_with_its_defaults
from tests.support.server import Server

Found = dict[str, str]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Callable[..., Found]:
    """Run the command; return the severities of its findings by rule."""

    def run(*arguments: str) -> Found:
        status = cli.main([*arguments, "--format", "json"])
        output = capsys.readouterr().out
        assert status in (0, 1), output
        found = {finding["id"]: finding["severity"] for finding in json.loads(output)["findings"]}
        assert (status == 1) == ("breaks" in found.values())
        return found

    return run


def grave(found: Found) -> set[str]:
    return {rule for rule, severity in found.items() if severity != "note"}


@contextmanager
def publishing(port: int, path: str, every: float = 0.5, **headers: str) -> Iterator[None]:
    """Publish to a server while the block runs."""
    stop = threading.Event()

    def publish() -> None:
        number = 0
        while not stop.wait(every):
            number += 1
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", path, json.dumps({"data": f"event {number}"}), headers)
            connection.getresponse().read()
            connection.close()

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def url(port: int, path: str = "/events") -> str:
    return f"http://127.0.0.1:{port}{path}"


def test_our_service_has_no_fault(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with Server(SSE_AUTH="none", SSE_HEARTBEAT=1) as server, publishing(server.port, "/events/news"):
        found = doctor(
            "--url", url(server.port, "/events/news"), "--probe-url", url(server.health_port, "/healthz"),
            "--patience", "4", "--streams", "20",
        )  # fmt: skip
    assert found == {}


def test_the_plain_apps_full_pool_and_missing_ids_are_found(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with plain_app(tmp_path, POOL="12") as port, publishing(port, "/publish"):
        found = doctor("--url", url(port), "--patience", "3")
    assert grave(found) == {"HW706"}
    with plain_app(tmp_path, POOL="12") as port:
        found = doctor("--direct", url(port), "--through", url(port), "--probe-url", url(port, "/healthz"), "--patience", "1")
    assert grave(found) == {"HW734"}


def test_nginx_with_its_defaults_holds_events_back(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with (
        plain_app(tmp_path) as port,
        nginx_with_its_defaults(tmp_path / "nginx", port) as front,
        publishing(port, "/publish"),
    ):
        found = doctor("--through", url(front), "--direct", url(port), "--patience", "5")
    assert grave(found) == {"HW721"}


def test_nginx_that_passes_events_on_has_no_fault(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with (
        plain_app(tmp_path) as port,
        nginx_with_its_defaults(tmp_path / "nginx", port, "proxy_buffering off; proxy_http_version 1.1;") as front,
        publishing(port, "/publish"),
    ):
        found = doctor("--through", url(front), "--direct", url(port), "--patience", "4")
    assert grave(found) == set()


def haproxy_found(tmp_path: Path, doctor: Callable[..., Found], idle: str, patience: str) -> Found:
    with plain_app(tmp_path) as port, haproxy(tmp_path, port, idle) as front:
        return doctor("--url", url(front), "--patience", patience)


def test_haproxys_idle_time_out_is_found(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    assert grave(haproxy_found(tmp_path, doctor, "3s", "8")) == {"HW711"}


@pytest.mark.slow
def test_haproxys_idle_time_out_of_ten_seconds_is_found(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    assert grave(haproxy_found(tmp_path, doctor, "10s", "20")) == {"HW711"}


def test_haproxy_leaves_a_stream_with_heartbeats_alone(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with node_server(tmp_path) as port, haproxy(tmp_path, port, "3s") as front:
        found = doctor("--through", url(front), "--direct", url(port), "--patience", "6")
    assert found == {}


def test_a_complete_node_server_has_no_fault(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with node_server(tmp_path) as port:
        found = doctor("--url", url(port), "--probe-url", url(port, "/healthz"), "--patience", "4")
    assert grave(found) == set()
    assert set(found) <= {"HW736"}  # Node keeps connections, the probe's too


def test_a_complete_go_server_has_no_fault(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with go_server(tmp_path) as port:
        found = doctor("--url", url(port), "--probe-url", url(port, "/healthz"), "--patience", "4")
    assert found == {}


def test_a_go_servers_write_timeout_is_found(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with go_server(tmp_path, WRITE_TIMEOUT="3s") as port:
        found = doctor("--url", url(port), "--patience", "8")
    assert grave(found) == {"HW711"}


def test_collected_events_are_found_by_their_own_times(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with node_server(tmp_path, CLUMP="3000") as port:
        found = doctor("--url", url(port), "--patience", "8")
    assert grave(found) == {"HW708"}


def test_a_probe_that_is_aimed_at_a_stream_is_found(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with node_server(tmp_path) as port:
        found = doctor("--probe-url", url(port))
    assert grave(found) == {"HW732"}


def test_an_answer_that_is_no_stream_is_reported(tmp_path: Path, doctor: Callable[..., Found]) -> None:
    with node_server(tmp_path) as port:
        assert grave(doctor("--url", url(port, "/healthz"), "--patience", "2")) == {"HW701"}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param("http://127.0.0.1:1/", "refused", id="nobody listens"),
        pytest.param("ftp://example.com/", "http://", id="another scheme"),
        pytest.param("http://127.0.0.1:99999/", "http://", id="no port"),
        pytest.param("http://no.such.host.invalid/", "no.such.host.invalid", id="no such host"),
    ],
)
def test_a_url_that_cannot_be_reached_gets_one_line(address: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--url", address]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error, error


def test_a_url_that_never_answers_gets_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_TIMEOUT", 0.5)
    with silent_server() as port:
        assert cli.main(["--url", url(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"headwater doctor: {url(port)}: no answer within 0.5 s") and error.count("\n") == 1


def test_a_certificate_that_cannot_be_verified_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ssl
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def accept() -> None:
            connection, _ = server.accept()
            try:
                context.wrap_socket(connection, server_side=True).close()
            except (ssl.SSLError, OSError):
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        assert cli.main(["--url", f"https://localhost:{port}/"]) == 2
        thread.join()
    error = capsys.readouterr().err
    assert "cannot be verified" in error and error.count("\n") == 1, error


