"""The table of raw-socket cases, against our server and against Go's net/http.

The cases run in threads: those about time all at once, for most of what they do is wait. A row marked as different
must really be different: its own steps for Go are run against Go.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pytest

from tests.live.raw import timeouts
from tests.live.raw.case import Case, Profile
from tests.live.raw.conversation import PATIENCE, Conversation, Surprise, open_sockets
from tests.live.raw_cases import CASES
from tests.support.go_peer import GoPeer, build_go_peer
from tests.support.programs import require_program
from tests.support.server import Server
from tests.support.wait import eventually

# Hundreds of connections whose ends are timed to tenths of a second.
pytestmark = pytest.mark.serial

T = TypeVar("T")

SMALL = 4096  # bytes: receive buffer (the kernel doubles it)
SEGMENT = 1400  # bytes; the loopback's own 64 KB make the server's send buffer megabytes large


class Table:
    """The servers, one for each profile that the selected cases need, and the outcome of each case.

    working: runs the cases that do not mostly wait.
    """

    def __init__(
        self, start: Callable[[Profile], Server], cases: list[Case], on_go: bool, working: ThreadPoolExecutor
    ) -> None:
        self._exit = contextlib.ExitStack()
        self._working = working
        self.servers: dict[str, Server] = {}
        self.outcomes: dict[str, Future[None]] = {}
        try:
            self._start(start, cases, on_go)
        except BaseException:
            self.close()
            raise

    def _start(self, start: Callable[[Profile], Server], cases: list[Case], on_go: bool) -> None:
        profiles = {case.profile.name: case.profile for case in cases}
        with ThreadPoolExecutor() as starting:
            begun = [(name, starting.submit(start, profile)) for name, profile in profiles.items()]
        for _, future in begun:
            if future.exception() is None:  # these run, also when another does not
                self._exit.enter_context(contextlib.closing(future.result()))
        self.servers = {name: future.result() for name, future in begun}
        self.before = {name: open_sockets(server) for name, server in self.servers.items()}
        waiting = self._exit.enter_context(ThreadPoolExecutor(len(timeouts.CASES)))
        patient = {case.name for case in timeouts.CASES}
        for case in cases:
            pool = waiting if case.name in patient else self._working
            self.outcomes[case.name] = pool.submit(_run, case, self.servers[case.profile.name], on_go)

    def close(self) -> None:
        """Wait for running cases, then end the servers."""
        for outcome in self.outcomes.values():
            outcome.exception()
        self._exit.close()


def _run(case: Case, server: Server, on_go: bool) -> None:
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        if case.small_buffers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        sock.connect(("127.0.0.1", server.port))
        talk = Conversation(server, sock)
        steps = case.go.steps if on_go and case.go else case.steps
        for number, step in enumerate(steps, 1):
            try:
                step.run(talk)
            except (AssertionError, OSError) as error:
                name = step if len(repr(step)) < 160 else f"{type(step).__name__}(…)"
                raise Surprise(f"step {number} of {len(steps)}, {name}: {error}") from None


def _selected(request: pytest.FixtureRequest) -> dict[str, list[Case]]:
    """Return this run's cases by table, so that ``-k`` is quick."""
    chosen: dict[str, list[Case]] = {}
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if (target := params.get("table")) in STARTS:
            cases = chosen.setdefault(target, [])
            if isinstance(case := params.get("case"), Case):
                cases.append(case)
    return chosen


def _start_ours(cases: list[Case], working: ThreadPoolExecutor) -> Table:
    return Table(lambda profile: Server(**profile.env).start(), cases, False, working)


def _start_go(cases: list[Case], working: ThreadPoolExecutor) -> Table:
    binary = build_go_peer(require_program("go", "golang-go"))
    return Table(lambda profile: GoPeer(binary, **profile.env).start(), cases, True, working)


STARTS = {"headwater": _start_ours, "go": _start_go}


@pytest.fixture(scope="module")
def tables(request: pytest.FixtureRequest) -> Iterator[dict[str, Table | BaseException]]:
    """Start all selected cases; Go's begin when ours are running."""
    with contextlib.ExitStack() as stack:
        working = stack.enter_context(ThreadPoolExecutor(4))  # more would be late for their own deadlines
        running: dict[str, Table | BaseException] = {}
        selected = _selected(request)
        for target in (target for target in STARTS if target in selected):
            try:
                running[target] = stack.enter_context(contextlib.closing(STARTS[target](selected[target], working)))
            except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
                running[target] = error  # the other one's cases are not to suffer from it
        yield running


@pytest.fixture(scope="module", params=STARTS)
def table(request: pytest.FixtureRequest, tables: dict[str, Table | BaseException]) -> Table:
    found = tables[request.param]
    if isinstance(found, BaseException):
        raise found
    return found


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_each_case_has_its_bytes_and_its_time(table: Table, case: Case) -> None:
    try:
        table.outcomes[case.name].result(timeout=90)
    except Surprise as surprise:
        failure = str(surprise)
    else:
        return
    pytest.fail(failure, pytrace=False)


@pytest.mark.parametrize("table", ["headwater"], indirect=True)  # with Go, marked rows do leave some behind
def test_no_connection_is_left_after_all_cases(table: Table) -> None:
    for outcome in table.outcomes.values():
        outcome.exception(timeout=90)
    for name, server in table.servers.items():

        def over(name: str = name, server: Server = server) -> bool:
            return open_sockets(server) <= table.before[name]

        eventually(over, 5, f"{name}: {table.before[name]} sockets before, more after")
        assert not [line for line in server.log_text().splitlines() if "Traceback" in line]


def test_case_names_are_unique_and_marked_differences_are_real() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert not [case.name for case in CASES if case.go and case.go.steps == case.steps]
