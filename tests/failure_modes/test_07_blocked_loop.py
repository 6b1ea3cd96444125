"""No. 7: a view blocks the event loop for 3 s.

In the lab's time (a tenth) three seconds are 0.3 s. Here the probes' time-outs are scaled, too, so that the proportions
are real.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.failure_modes.pods import TENTH, Pod, our_pod, plain_pod, serving
from tests.support.kubelet import Kind
from tests.support.resuming_client import ResumingClient
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually

EXACT = replace(TENTH, least_timeout=0.1)
BLOCKED = 0.3  # 3 s of the kubelet's time


@contextmanager
def users(ask: Callable[[], object], count: int) -> Iterator[None]:
    """Run this many users who ask for the same again and again."""
    over = threading.Event()

    def one() -> None:
        while not over.is_set():
            with suppress(OSError):
                ask()

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(15)


def blocked_view(pod: Pod) -> Callable[[], object]:
    return lambda: pod.ask("GET", f"/report/{BLOCKED}", timeout=10)


def test_the_plain_pod_is_restarted_because_a_second_is_too_short_for_its_views(tmp_path: Path) -> None:
    with plain_pod(tmp_path, EXACT) as pod:
        with users(lambda: pod.ask("GET", f"/report?seconds={BLOCKED}", timeout=3), 2):
            pod.kubelet.wait_for("Killing")
        assert "failed liveness probe" in pod.kubelet.events("Killing")[0].message
        assert any("Client.Timeout exceeded" in text for text in pod.unhealthy(Kind.LIVENESS))


def test_our_pod_is_not_restarted_by_the_same_view_and_is_ready_right_after_it(tmp_path: Path) -> None:
    with our_pod(tmp_path, EXACT, command=serving("tests.failure_modes.faulty:app")) as pod:
        liveness, readiness = (pod.kubelet.spec.probes[kind] for kind in (Kind.LIVENESS, Kind.READINESS))
        assert liveness.timeout > BLOCKED
        assert readiness.timeout + readiness.period > BLOCKED, "one probe may fail, the next is answered"
        with SSEClient(pod.port, "/events/news") as client:
            for _ in range(3):
                assert pod.ask("GET", f"/report/{BLOCKED}").text == "done\n"
                eventually(lambda: pod.probe("/readyz").status == 200, 3)
            pod.ask("POST", "/events/news", b"still here")
            assert client.next_message().data == "still here"
        assert pod.kubelet.count("Killing") == 0


def test_our_pod_is_not_restarted_and_cuts_nobody_when_the_view_takes_ten_times_as_long(tmp_path: Path) -> None:
    with our_pod(tmp_path, EXACT, command=serving("tests.failure_modes.faulty:app")) as pod:
        with SSEClient(pod.port, "/events/news") as client:
            began = time.monotonic()
            assert pod.ask("GET", f"/report/{10 * BLOCKED}", timeout=15).text == "done\n"
            assert time.monotonic() - began >= 10 * BLOCKED
            eventually(lambda: pod.kubelet.ready, 10)
            pod.ask("POST", "/events/news", b"still here")
            assert client.next_message().data == "still here"
        assert pod.restarts == 0
        assert pod.unhealthy(Kind.LIVENESS), "it was long enough to be noticed: three failures, six are allowed"


def test_a_worker_stuck_for_good_is_replaced_inside_the_pod_and_its_clients_resume(tmp_path: Path) -> None:
    # 3 s instead of 30 for gunicorn's watchdog, in the scale of everything else here.
    command = serving("tests.failure_modes.faulty:app", "--timeout", "3")
    with our_pod(tmp_path, command=command) as pod, ResumingClient(pod.port, "/events/news") as client:
        client.wait_connected()
        with suppress(OSError):
            pod.ask("GET", "/report/60.0", timeout=0.5)
        eventually(lambda: "WORKER TIMEOUT" in pod.kubelet.output(), 10)
        client.wait_for(lambda client: client.connections == 2)
        pod.ask("POST", "/events/news", b"after")
        client.wait_for(lambda client: [entry.data for entry in client.ledger] == ["after"])
        eventually(lambda: pod.kubelet.ready, 10)
        assert pod.restarts == 0
