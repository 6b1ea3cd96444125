"""Runs under the real server: two instances on one log, as two pods."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.live.observe import samples
from tests.support.resuming_client import ResumingClient
from tests.support.server import Server
from tests.support.sse_client import Ending, SSEClient
from tests.support.sse_parser import StreamEvent
from tests.support.wait import eventually

RUNS_APP = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.live.runs_app:app")

OpenStream = Callable[..., SSEClient]


def pod(directory: Path, **env: Any) -> Server:
    """An instance; those with the same directory share the log."""
    settings = {"SSE_LOG": f"sqlite:///{directory}/shared.db", "NOTES": str(directory), "SSE_RETRY": 50, "SSE_REPLAY_LIMIT": 20_000, **env}
    return Server(command=RUNS_APP, **settings)


class Pods(NamedTuple):
    one: Server
    two: Server
    directory: Path


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    directory = tmp_path_factory.mktemp("runs")
    with pod(directory) as one, pod(directory) as two:
        yield Pods(one, two, directory)


def told(server: Server, run: str) -> dict[str, Any]:
    """What ``GET /runs/<id>`` answers."""
    answer = server.request("GET", f"/runs/{run}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()
    return found


def run_of(server: Server, channel: str) -> str:
    """The id of a channel's newest run."""
    return str(eventually(lambda: server.request("GET", f"/runs?channel={channel}").json()["runs"], 5)[0]["run"])


def wait_state(server: Server, run: str, *states: str, seconds: float = 5.0) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        found = told(server, run)
        return found if found["state"] in states else None

    return eventually(there, seconds, lambda: f"{told(server, run)}")


def notes(directory: Path, name: str) -> list[str]:
    path = directory / name
    return path.read_text().split() if path.exists() else []


def history(server: Server, channel: str) -> tuple[list[str], list[dict[str, Any]]]:
    """All items and ends of a closed channel, read from its beginning."""
    with SSEClient(server.port, f"/events/{channel}?since=earliest") as client:
        blocks = client.events_until(lambda block: block.event == "stream-end", 10)
    return split(blocks)


def split(blocks: list[StreamEvent]) -> tuple[list[str], list[dict[str, Any]]]:
    """The items, and the ends."""
    items = [block.data or "" for block in blocks if not block.is_control and block.event != "run"]
    return items, [json.loads(block.data or "") for block in blocks if block.event == "run"]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_watched_from_its_first_item_to_its_end(pods: Pods, open_stream: OpenStream) -> None:
    client = open_stream(pods.one, "/ticks/watched?count=20&pause=0.01&late=0.1", method="POST")
    assert client.headers["content-type"] == "text/event-stream"
    blocks = client.events_until(lambda block: block.event == "stream-end", 10)
    items, (end,) = split(blocks)
    assert items == numbers(20)
    run = run_of(pods.two, "watched")
    assert end == {"run": run, "state": "done", "events": 20, "usage": {"ticks": 20}}
    info = wait_state(pods.two, run, "done")
    assert info.keys() == {"run", "channel", "state", "started", "events", "worker"}
    assert (info["channel"], info["events"]) == ("watched", 20)


def test_a_reader_may_leave_at_any_byte_and_miss_nothing(pods: Pods, open_stream: OpenStream) -> None:
    with SSEClient(pods.one.port, "/ticks/bytes?count=30&pause=0", method="POST") as client:
        client.events_until(lambda block: block.event == "stream-end", 10)
    target = "/events/bytes?since=earliest"
    with open_stream(pods.one, target) as whole:
        blocks = whole.events_until(lambda block: block.event == "stream-end", 5)
        size = len(whole.body)
    assert split(blocks)[0] == numbers(30)
    for cut in [*range(1, 120), *range(120, size, 23)]:
        seen: list[StreamEvent] = []
        with SSEClient(pods.two.port, target) as first:
            while len(first.body) < cut:
                first.next_event(5)
            parser = type(first._parser)()
            seen += parser.feed(bytes(first.body[:cut]))  # what had arrived when it left
            first.abort()
        with SSEClient(pods.one.port, "/events/bytes", last_event_id=parser.last_event_id or "0-0") as second:
            if second.status != 204:  # it has seen the end
                seen += second.events_until(lambda block: block.event == "stream-end", 5)
        items, ends = split(seen)
        assert (items, len(ends)) == (numbers(30), 1), f"cut after {cut} bytes"


def test_a_run_goes_on_when_every_reader_has_gone(pods: Pods) -> None:
    with SSEClient(pods.one.port, "/ticks/alone?count=40&pause=0.01", method="POST") as client:
        client.next_message()
        client.abort()
    wait_state(pods.one, run_of(pods.one, "alone"), "done")
    assert history(pods.two, "alone")[0] == numbers(40)
    assert notes(pods.directory, "alone") == ["begun", "closed"]


def test_readers_on_two_pods_see_the_same_while_connections_break(pods: Pods) -> None:
    with SSEClient(pods.one.port, "/ticks/many?count=100&pause=0.01", method="POST") as first:
        first.next_message()
        readers = [ResumingClient(server.port, "/events/many?since=earliest", retry=20) for server in pods[:2] * 2]
        for reader in readers:
            reader.__enter__()
        try:
            for reader in readers:
                eventually(lambda reader=reader: any(e.event == "run" for e in reader.ledger), 10)  # type: ignore[misc]
        finally:
            for reader in readers:
                reader.__exit__(None, None, None)
    for reader in readers:
        assert [seen.data for seen in reader.ledger if seen.event is None] == numbers(100)


def test_two_identical_posts_at_once_start_one_run(pods: Pods) -> None:
    ready = threading.Barrier(4)
    seen: list[list[StreamEvent]] = []

    def post(server: Server) -> None:
        ready.wait()
        with SSEClient(server.port, "/ticks/twice?count=20&pause=0.02&key=k", method="POST") as client:
            seen.append(client.events_until(lambda block: block.event == "stream-end", 10))

    threads = [threading.Thread(target=post, args=(server,)) for server in pods[:2] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    for blocks in seen:
        items, ends = split(blocks)
        assert items == numbers(20) and len(ends) == 1
    assert notes(pods.directory, "twice") == ["begun", "closed"]
    # A repeat after the end sees the same, and starts nothing.
    with SSEClient(pods.two.port, "/ticks/twice?count=20&key=k", method="POST") as client:
        assert split(client.events_until(lambda block: block.event == "stream-end", 10))[0] == numbers(20)
    assert notes(pods.directory, "twice") == ["begun", "closed"]


def test_a_second_run_on_a_busy_or_closed_channel_is_refused(pods: Pods) -> None:
    first = pods.one.request("POST", "/start/silent/busy")
    assert first.status == 201
    for server in pods[:2]:
        answer = server.request("POST", "/start/silent/busy")
        assert (answer.status, answer.json()["run"]) == (409, first.text)
    assert pods.two.request("POST", f"/runs/{first.text}/stop").status == 202
    wait_state(pods.one, first.text, "stopped")


def test_the_runs_beyond_the_limit_are_told_to_come_again(tmp_path: Path) -> None:
    with pod(tmp_path, SSE_MAX_RUNS=1, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0.2) as server:
        assert server.request("POST", "/start/silent/a").status == 201
        answer = server.request("POST", "/start/silent/b")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "SSE_MAX_RUNS" in answer.json()["detail"]


# ── stopping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_stop_from_another_pod_closes_the_iterable_within_a_second(pods: Pods) -> None:
    run = pods.one.request("POST", "/start/silent/stopped").text
    eventually(lambda: notes(pods.directory, "stopped") == ["begun"], 5)
    began = time.monotonic()
    answer = pods.two.request("POST", f"/runs/{run}/stop")
    assert (answer.status, answer.json()["run"]) == (202, run)
    eventually(lambda: notes(pods.directory, "stopped") == ["begun", "GeneratorExit", "closed"], 5)
    assert time.monotonic() - began < 1.0
    wait_state(pods.two, run, "stopped")
    again = pods.two.request("POST", f"/runs/{run}/stop")
    assert (again.status, again.json()["state"]) == (200, "stopped")
    assert history(pods.one, "stopped") == ([], [{"run": run, "state": "stopped", "events": 0}])


def test_an_app_stops_a_run_by_its_id(pods: Pods) -> None:
    run = pods.one.request("POST", "/start/silent/by-id").text
    assert pods.two.request("POST", f"/stop/{run}").status == 204
    wait_state(pods.one, run, "stopped")


def test_an_iterable_that_ignores_generator_exit_is_stopped_all_the_same(pods: Pods) -> None:
    run = pods.one.request("POST", "/start/stubborn/stubborn").text
    wait_state(pods.one, run, "running")
    eventually(lambda: told(pods.one, run)["events"] > 2, 5)
    pods.two.request("POST", f"/runs/{run}/stop")
    stopped = wait_state(pods.two, run, "stopped", seconds=2)
    assert notes(pods.directory, "stubborn")[0] == "GeneratorExit"
    items, ends = history(pods.one, "stubborn")
    assert items == numbers(stopped["events"]) and [end["state"] for end in ends] == ["stopped"]


@pytest.mark.parametrize("path", ["/runs/nothing", f"/runs/a~{'0' * 32}", "/runs/a~x", "/runs/_control~" + "0" * 32])
def test_an_unknown_run_is_404(pods: Pods, path: str) -> None:
    assert pods.one.request("GET", path).status == 404
    assert pods.one.request("POST", f"{path}/stop").status == 404


# ── odd iterables ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ten_thousand_items_at_once_arrive_while_others_are_served(pods: Pods) -> None:
    run = pods.one.request("POST", "/start/at_once/flood").text
    while told(pods.one, run)["state"] == "running":
        began = time.monotonic()
        assert pods.one.request("GET", "/pid").status == 200
        assert time.monotonic() - began < 1
    assert history(pods.two, "flood")[0] == numbers(10_000)


def test_an_exception_is_told_to_the_log_only(pods: Pods) -> None:
    run = pods.one.request("POST", "/start/broken/broken").text
    wait_state(pods.one, run, "error")
    assert history(pods.one, "broken") == (["one"], [{"run": run, "state": "error", "events": 1}])
    assert "hunter2" in pods.one.log_text()


# ── ends of workers ──────────────────────────────────────────────────────────────────────────────────────────────────


def pid_of(info: dict[str, Any]) -> int:
    return int(info["worker"].split("-")[-2])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_runs_of_a_killed_worker_are_lost_once_and_within_ten_seconds(tmp_path: Path, workers: int) -> None:
    with pod(tmp_path, WEB_CONCURRENCY=workers) as server:
        with SSEClient(server.port, "/ticks/dies?count=100000&pause=0.02", method="POST") as client:
            client.next_message()
        run = run_of(server, "dies")
        with ResumingClient(server.port, "/events/dies?since=earliest", retry=50) as reader:
            eventually(lambda: len(reader.ledger) > 10, 5)
            os.kill(pid_of(told(server, run)), signal.SIGKILL)
            killed = time.monotonic()
            eventually(lambda: [seen for seen in reader.ledger if seen.event == "run"], 12, "nobody has ended it")
            assert time.monotonic() - killed < 10.0
            items = [seen.data for seen in reader.ledger if seen.event is None]
            assert items == numbers(len(items))
        wait_state(server, run, "lost")
        assert history(server, "dies") == (items, [{"run": run, "state": "lost", "events": len(items)}])
        eventually(lambda: samples(server)['sse_runs_ended_total{state="lost"}'] == 1, 5)


def test_a_draining_worker_waits_for_its_runs_while_their_readers_move(tmp_path: Path) -> None:
    settings = {"SSE_DRAIN_DELAY": 0.3, "SSE_DRAIN_WINDOW": 0.3, "SSE_RUN_GRACE": 20}
    with pod(tmp_path, **settings) as old, pod(tmp_path, **settings) as new:
        ports = [old.port]
        with SSEClient(old.port, "/ticks/moves?count=80&pause=0.05", method="POST") as first:
            first.next_message()
        with ResumingClient(lambda: ports[0], "/events/moves?since=earliest", retry=20) as reader:
            eventually(lambda: len(reader.ledger) > 3, 5)
            old.terminate()
            began = time.monotonic()
            ports[0] = new.port
            verbose = eventually(
                lambda: (text := old.request("GET", "/readyz?verbose", port=old.health_port).text) and "waits for" in text and text, 3
            )
            assert "is draining, and waits for its runs: 1" in verbose
            assert old.wait(25) == 0
            took = time.monotonic() - began
            eventually(lambda: [seen for seen in reader.ledger if seen.event == "run"], 5)
            assert reader.endings[0] is Ending.TERMINATED
        assert 2.0 < took < 15.0, "as long as the run, not the grace"
        items, ends = history(new, "moves")
        assert items == numbers(80) and [end["state"] for end in ends] == ["done"]
        assert [seen.data for seen in reader.ledger if seen.event is None] == numbers(80)
        assert "draining: 1 runs go on" in old.log_text()


@pytest.mark.parametrize(
    ("settings", "after"),
    [
        pytest.param({"SSE_DRAIN_DELAY": 0.3, "SSE_DRAIN_WINDOW": 0.7}, 1.0, id="until-the-end-of-the-drain"),
        pytest.param({"SSE_DRAIN_DELAY": 0.2, "SSE_DRAIN_WINDOW": 0.2, "SSE_RUN_GRACE": 1.5}, 1.5, id="for-its-grace"),
        pytest.param({"SSE_DRAIN_DELAY": 2.5, "SSE_DRAIN_WINDOW": 0.2, "SSE_RUN_GRACE": 0.5}, 0.5, id="a-short-grace"),
    ],
)
def test_what_has_not_ended_in_time_is_lost_as_drained(tmp_path: Path, settings: dict[str, Any], after: float) -> None:
    with pod(tmp_path, **settings) as old, pod(tmp_path) as new:
        silent = old.request("POST", "/start/silent/quiet").text
        with SSEClient(old.port, "/ticks/late?count=100000&pause=0.02", method="POST") as client:
            client.next_message()
        old.terminate()
        began = time.monotonic()
        late = run_of(new, "late")
        wait_state(new, late, "lost", seconds=after + 5)
        took = time.monotonic() - began
        assert after - 0.1 < took < after + 2.5
        wait_state(new, silent, "lost")
        assert old.wait(10) == 0
        for channel, run in (("late", late), ("quiet", silent)):
            items, ends = history(new, channel)
            assert ends == [{"run": run, "state": "lost", "events": len(items), "error": "drained"}]
            assert notes(tmp_path, channel) == ["begun", "GeneratorExit", "closed"]


def test_a_hurried_drain_ends_its_runs_at_once(tmp_path: Path) -> None:
    with pod(tmp_path, SSE_RUN_GRACE=60) as old, pod(tmp_path) as new:
        run = old.request("POST", "/start/silent/hurried").text
        old.signal(signal.SIGQUIT)
        assert old.wait(5) == 0
        wait_state(new, run, "lost")
        assert history(new, "hurried")[1] == [{"run": run, "state": "lost", "events": 0, "error": "drained"}]


def test_runs_are_in_the_metrics(pods: Pods) -> None:
    run = pods.one.request("POST", "/start/silent/counted").text
    wait_state(pods.one, run, "running")
    eventually(lambda: samples(pods.one)['sse_runs{state="running"}'] >= 1, 3)
    pods.one.request("POST", f"/runs/{run}/stop")
    eventually(lambda: samples(pods.one)['sse_runs_ended_total{state="stopped"}'] >= 1, 3)
    found = samples(pods.one)
    assert found["sse_run_items_total"] > 0 and found["sse_run_seconds_count"] > 0
