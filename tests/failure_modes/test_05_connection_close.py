"""No. 5: a view says ``Connection: close``, and the wire says ``keep-alive``.

gunicorn drops an app's hop-by-hop headers (PEP 3333 forbids them) and decides itself. Flask's test client has no wire, so
it cannot see that.
"""

from __future__ import annotations

from pathlib import Path

from tests.failure_modes.pods import our_pod, plain_pod
from tests.failure_modes.wire import connection, get, head_of, read_until_quiet


def test_the_plain_app_answers_keep_alive_and_keeps_the_connection(tmp_path: Path) -> None:
    with plain_pod(tmp_path) as pod, connection(pod.port) as sock:
        sock.sendall(get("/healthz"))
        octets, closed = read_until_quiet(sock)
        assert octets.startswith(b"HTTP/1.1 200")
        assert head_of(octets)["connection"] == "keep-alive"
        assert not closed
        sock.sendall(get("/healthz"))
        again, _ = read_until_quiet(sock)
        assert again.startswith(b"HTTP/1.1 200"), "the connection that was to be closed answers another request"


def test_ours_says_close_and_closes_on_either_port(tmp_path: Path) -> None:
    with our_pod(tmp_path) as pod:
        for port in (pod.health_port, pod.port):
            with connection(port) as sock:
                sock.sendall(get("/readyz"))
                octets, closed = read_until_quiet(sock)
                assert head_of(octets)["connection"] == "close"
                assert closed
        assert pod.restarts == 0
