"""No. 13: a thousand clients reconnect at once after a restart."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.failure_modes.crowd import Crowd
from tests.failure_modes.pods import Pod, our_pod, plain_pod
from tests.support.kubelet import Kind
from tests.support.wait import eventually

pytestmark = pytest.mark.serial  # a crowd of this size takes the whole machine

CLIENTS = 1000
RETRY = 1.0  # seconds


def crash(pod: Pod) -> None:
    """Kill the container; the kubelet starts it again at once."""
    assert pod.kubelet.pid is not None
    os.kill(pod.kubelet.pid, signal.SIGKILL)
    pod.kubelet.wait_for("Started", 2)


def published(pod: Pod, path: str, body: bytes) -> bool:
    try:
        return pod.ask("POST", path, body, timeout=2).status < 300
    except OSError:
        return False


@pytest.mark.slow  # the plain app's failure, which no change of ours affects
def test_the_plain_pod_loses_what_clients_missed_and_is_restarted_by_their_return(tmp_path: Path) -> None:
    with (
        plain_pod(tmp_path, patience="initial delay") as pod,
        Crowd(pod.port, CLIENTS, "/events", reconnect=RETRY) as crowd,
    ):
        crowd.wait(lambda crowd: crowd.answered == 100)
        crash(pod)
        eventually(lambda: published(pod, "/publish", b'{"data": "missed"}'), 10)
        pod.kubelet.wait_for("Started", 3)
        assert pod.unhealthy(Kind.LIVENESS), "one crash, and then a restart that the clients brought about"
        assert crowd.got(b"data: missed") < CLIENTS / 10


def test_ours_takes_all_back_replays_what_they_missed_and_answers_probes(tmp_path: Path) -> None:
    with our_pod(tmp_path) as pod, Crowd(pod.port, CLIENTS, "/events/news", reconnect=RETRY) as crowd:
        crowd.wait(lambda crowd: crowd.answered == CLIENTS, 20)
        crash(pod)
        eventually(lambda: published(pod, "/events/news", b"missed"), 10)
        began = time.monotonic()
        crowd.wait(lambda crowd: crowd.got(b"data: missed") == CLIENTS, 30)
        assert crowd.answered == CLIENTS
        eventually(lambda: pod.kubelet.ready, 10)
        assert pod.restarts == 1, "the one that this test brought about"
        assert pod.unhealthy() == []
        # Some retry intervals, and a second or two for a thousand requests on a busy machine.
        assert time.monotonic() - began < 20
