"""No. 4: probes on a connection that is kept alive, and several in one packet.

The kubelet has closed its connections after each probe since 2015, because kept-alive ones restarted pods
(kubernetes#15643). Load balancers, service meshes and monitors still keep theirs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failure_modes.pods import Pod, our_pod, plain_pod
from tests.failure_modes.wire import connection, get, head_of, read_until_quiet
from tests.support.kubelet import Kind
from tests.support.wait import eventually

PROBES = ("/healthz", "/livez", "/readyz", "/startupz")
BODY = {"/healthz": b"ok\n", "/livez": b"ok\n", "/readyz": b"ok\n", "/startupz": b"ok\n"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with plain_pod(tmp_path_factory.mktemp("pod"), KEEPALIVE=2) as pod:  # gunicorn's own default
        yield pod


def test_the_plain_app_closes_a_kept_probe_connection_before_the_next_probe(plain: Pod) -> None:
    """gunicorn's default keepalive is 2 s, so a prober that asks every 10 s finds the connection closed each time."""
    with connection(plain.port) as sock:
        sock.sendall(get("/healthz"))
        octets, closed = read_until_quiet(sock)
        assert head_of(octets)["connection"] == "keep-alive"
        assert not closed, "it promises to stay"
        time.sleep(2.5)
        try:
            sock.sendall(get("/healthz"))
            octets, closed = read_until_quiet(sock)
        except OSError:
            octets, closed = b"", True
        assert (octets, closed) == (b"", True), "and does not: this probe gets no answer"


@pytest.mark.parametrize(
    "target, said, seen",
    [
        pytest.param("/status?text=gr%C3%BCn", b"4", b"gr\xc3\xbc", id="cut short: characters counted, bytes sent"),
        pytest.param("/status?text=ok&more=8", b"10", b"okHTTP/1.1", id="spilling: the next answer is its body"),
    ],
)
def test_the_plain_apps_pipelined_answers_have_wrong_ends(
    plain: Pod, target: str, said: bytes, seen: bytes
) -> None:
    with connection(plain.port) as sock:
        sock.sendall(get(target) + get("/healthz"))
        octets, _ = read_until_quiet(sock)
    head, _, rest = octets.partition(b"\r\n\r\n")
    assert b"Content-Length: " + said in head
    assert rest[: int(said)] == seen


def test_the_plain_app_holds_a_connection_of_its_pool_for_each_kept_probe(tmp_path: Path) -> None:
    with plain_pod(tmp_path) as pod, contextlib.ExitStack() as kept:
        for _ in range(100):
            kept.enter_context(connection(pod.port)).sendall(get("/healthz"))
        # A hundred monitors and no client: no place is left for the kubelet's probe.
        eventually(lambda: pod.unhealthy(Kind.LIVENESS), 10)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with our_pod(tmp_path_factory.mktemp("pod")) as pod:
        yield pod


@pytest.mark.parametrize("listener", ["health", "http"])
@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("times", [pytest.param(1, id="one"), pytest.param(5, id="five pipelined")])
def test_our_answer_is_exact_to_the_byte_and_the_last_on_its_connection(
    ours: Pod, listener: str, path: str, times: int
) -> None:
    with connection(ours.kubelet.port(listener)) as sock:
        sock.sendall(get(path, "Connection: keep-alive") * times)
        octets, closed = read_until_quiet(sock)
    head, _, body = octets.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    headers = head_of(octets)
    assert headers["connection"] == "close"
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers
    assert body == BODY[path], "nothing is missing, and nothing follows"
    assert closed


def test_hundreds_of_probes_in_a_row_are_alike_and_leave_nothing_behind(ours: Pod) -> None:
    answers = set()
    for number in range(300):
        with connection(ours.health_port) as sock:
            sock.sendall(get(PROBES[number % 3], "Connection: keep-alive"))
            octets, closed = read_until_quiet(sock)
            answers.add((octets.partition(b"\r\n\r\n")[2], closed))
    assert answers == {(b"ok\n", True)}
    eventually(lambda: ours.metric('sse_connections{state="idle"}') == 0, 5)


def test_our_verbose_answers_state_their_length_in_bytes(ours: Pod) -> None:
    with connection(ours.health_port) as sock:
        sock.sendall(get("/readyz?verbose"))
        octets, closed = read_until_quiet(sock)
    assert closed
    assert head_of(octets)["content-length"] == str(len(octets.partition(b"\r\n\r\n")[2]))
