"""A network between clients and server that drops everything: no FIN, no RST, and no event lost."""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.chaos.fleet import Fleet
from tests.chaos.reader import reckon
from tests.chaos.silent_proxy import SilentProxy
from tests.support.wait import eventually


def test_clients_behind_a_silent_network_get_what_they_missed_when_it_speaks_again(
    fleet: Fleet, stack: ExitStack
) -> None:
    network = stack.enter_context(SilentProxy(fleet.port))
    readers = fleet.readers(stack, 6, [network.port])
    others = fleet.readers(stack, 3)
    with fleet.recorder(rate=100) as recorder:
        recorder.progress()
        silent = time.monotonic()
        network.silence()
        recorder.progress(100)
        assert max(reader.ledger[-1].at for reader in readers) < silent + 0.5, "events through a silent network"
        network.speak()
        recorder.progress()
    reckon("silent network between clients and nginx", [*readers, *others], recorder.finish())
    assert sum(reader.reconnects for reader in readers) == 0, "what fits into the network's buffers waits there"


def test_the_server_gives_up_clients_that_take_nothing_and_they_resume(fleet: Fleet, stack: ExitStack) -> None:
    # To the instance itself: nginx would buffer for them.
    server = fleet.servers[0]
    network = stack.enter_context(SilentProxy(server.port))
    readers = fleet.readers(stack, 3, [network.port])
    others = fleet.readers(stack, 3)

    def given_up() -> float:
        lines = server.request("GET", "/metrics", port=server.health_port).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if 'closed_total{reason="write-timeout"' in line)

    before = given_up()
    # 8 MB: more than the sockets on the way can hold.
    with fleet.recorder(rate=200, size=30_000) as recorder:
        recorder.progress()
        network.silence()
        eventually(lambda: given_up() >= before + 3, 15, "streams that take nothing are kept for ever")
        network.speak()
        recorder.progress()
    reckon("silent network until the server gave its streams up", [*readers, *others], recorder.finish(), timeout=30)
    assert all(reader.reconnects > 0 for reader in readers)
