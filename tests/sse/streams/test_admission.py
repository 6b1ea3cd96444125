"""Which streams a worker admits, and what it counts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sse.auth.address import address_bucket
from sse.settings import Settings
from sse.streams.admission import Admission
from sse.streams.stats import Stats

SITE = "2001:db8:0:7::/64"
IN_SITE = ("2001:db8:0:7::1", "2001:db8:0:7::2")


class Place:
    """An admission whose settings can change."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings.from_mapping(settings)
        self.stats = Stats()
        self.admission = Admission(self.settings, self.stats, address_bucket)
        self.admit = self.admission.admit

    def change(self, **settings: Any) -> None:
        self.settings.become(Settings.from_mapping(settings))()


def test_streams_are_admitted_up_to_the_limit_and_again_when_one_has_left() -> None:
    place = Place(SSE_MAX_STREAMS=3)
    assert [place.admit("-") for _ in range(4)] == [None, None, None, "streams"]
    place.admission.release("-")
    assert place.admit("-") is None
    assert place.stats.refused == {"streams": 1}


def test_asking_counts_no_stream() -> None:
    place = Place(SSE_MAX_STREAMS=1)
    assert [place.admit("-", count=False) for _ in range(3)] == [None] * 3
    assert place.admission.streams == 0


def test_streams_of_one_address_are_admitted_up_to_their_limit() -> None:
    place = Place(SSE_MAX_STREAMS_PER_IP=2)
    assert [place.admit("10.0.0.1") for _ in range(3)] == [None, None, "streams-per-ip"]
    assert place.admit("10.0.0.2") is None


def test_a_limit_per_address_set_later_counts_the_streams_that_are_open() -> None:
    place = Place()
    clients = ["10.0.0.1", "10.0.0.1", *IN_SITE]
    assert [place.admit(client) for client in clients] == [None] * 4
    place.change(SSE_MAX_STREAMS_PER_IP=2)
    assert [place.admit(client) for client in ("10.0.0.1", SITE)] == ["streams-per-ip"] * 2
    place.change()
    assert place.admit(IN_SITE[0]) is None  # counted by its address again
    place.change(SSE_MAX_STREAMS_PER_IP=3)
    assert place.admit(SITE) == "streams-per-ip"
    for client in (*clients, IN_SITE[0]):
        place.admission.release(client)
    assert place.admission.streams == 0 and +place.admission._per_client == {}


def test_a_draining_worker_admits_nobody() -> None:
    place = Place()
    place.admission.drain()
    assert place.admit("-") == "drain"


def test_threads_that_ask_at_once_are_not_admitted_beyond_the_limit() -> None:
    class Slow:
        """Settings after whose reading other threads always run."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(place.settings, name)
            time.sleep(0.001)
            return value

    for _ in range(5):
        place = Place()
        place.admission._settings = Slow()  # type: ignore[assignment]
        place.admission.limit_pulling(2)
        with ThreadPoolExecutor(4) as pool:
            admitted = list(pool.map(place.admit, ["-"] * 4))
        assert admitted.count(None) == 2 and admitted.count("threads") == 2
