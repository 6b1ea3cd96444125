"""The load generator counts exactly what a known server sent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from bench import load
from tests.bench.known_server import KnownServer, block, byte_by_byte, joined, split, stamp, whole

SIZE = 100

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load generator needs a C compiler")


@pytest.fixture
def server() -> Iterator[KnownServer]:
    with KnownServer(SIZE) as running:
        yield running


def run(server: KnownServer, *arguments: str, **options: float | str) -> load.Result:
    """Run it against `server`; options become --name value."""
    given = {
        "port": server.port,
        "size": SIZE,
        "settle": 0.05,
        "warmup": 0,
        "seconds": 5,
        "publish": "none",
        **options,
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return load.run([*flags, *arguments], timeout=30)


BODIES = [
    pytest.param(whole, id="one write"),
    pytest.param(byte_by_byte, id="byte by byte"),
    pytest.param(split(7), id="cut every 7 bytes"),
    pytest.param(joined(5), id="five events in one chunk"),
]


@pytest.mark.parametrize("line_end", [pytest.param("\n", id="LF"), pytest.param("\r\n", id="CRLF")])
@pytest.mark.parametrize("is_chunked", [pytest.param(True, id="chunked"), pytest.param(False, id="close-delimited")])
@pytest.mark.parametrize("cut", BODIES)
def test_every_event_is_counted_wherever_the_bytes_are_cut(
    server: KnownServer, cut: Callable[[list[bytes]], list[bytes]], is_chunked: bool, line_end: str
) -> None:
    server.send([block(stamp(n, SIZE), line_end=line_end) for n in range(40)], cut=cut, is_chunked=is_chunked)
    result = run(server, streams=3)
    assert result["opened"] == 3
    assert result["events"] == 3 * 40
    assert faults(result) == {}
    assert result["closed_early"] == 3  # the server ended its streams, which is reported


@pytest.mark.parametrize(
    ("numbers", "wanted"),
    [
        pytest.param([0, 1, 2, 2, 3], {"duplicates": 1}, id="a duplicate"),
        pytest.param([0, 1, 4, 5], {"gaps": 2}, id="two missing"),
        pytest.param([1, 2], {"gaps": 1}, id="the first missing"),
        pytest.param([0, 2, 1, 3], {"reordered": 1}, id="two swapped"),
        pytest.param([0, 5, 3, 3, 6], {"gaps": 3, "reordered": 1, "duplicates": 1}, id="a gap, half filled, twice"),
        pytest.param([0, 1, 2, 2, 5, 6, 6], {"gaps": 2, "duplicates": 2}, id="gap and duplicates"),
    ],
)
def test_gaps_duplicates_and_swaps_are_each_counted(
    server: KnownServer, numbers: list[int], wanted: dict[str, int]
) -> None:
    server.send([block(stamp(n, SIZE)) for n in numbers])
    result = run(server, streams=2)
    assert result["events"] == 2 * len(numbers)
    assert faults(result) == {name: 2 * count for name, count in wanted.items()}


def test_more_gaps_than_a_stream_remembers_are_all_counted(server: KnownServer) -> None:
    server.send([block(stamp(n, SIZE)) for n in range(1, 201, 2)])
    assert faults(run(server, streams=1)) == {"gaps": 100}


def test_blocks_without_data_are_not_counted_as_events(server: KnownServer) -> None:
    server.send(
        [
            b": a comment\n\n",
            b"id: 1-0\nretry: 2000\n\n",
            b"id: 1-0\nevent: heartbeat\ndata: 1732345678901\n\n",
            b'event: stream-reset\ndata: {"t":1,"n":0}\n\n',
            b"data: something else\n\n",
            block(stamp(0, SIZE)),
            b"data: never finished",
        ]
    )
    result = run(server, streams=1)
    counted = {name: result[name] for name in ("events", "heartbeats", "resets", "foreign")}
    assert counted == {"events": 1, "heartbeats": 1, "resets": 1, "foreign": 1}


def test_an_event_that_lost_bytes_is_reported(server: KnownServer) -> None:
    server.send([block(stamp(0, SIZE)), block(stamp(1, SIZE)[:-3])])
    assert faults(run(server, streams=1)) == {"wrong_size": 1}


def test_a_large_event_is_measured_to_its_end(server: KnownServer) -> None:
    size = 16 * 1024
    server.send([block(stamp(n, size)) for n in range(20)], cut=split(1000))
    result = run(server, streams=1, size=size)
    assert (result["events"], faults(result)) == (20, {})


def test_an_event_in_an_envelope_is_recognised(server: KnownServer) -> None:
    server.send([block('{"pub":{"data":' + stamp(n, SIZE) + "}}") for n in range(3)])
    result = run(server, streams=1)
    assert (result["events"], faults(result)) == (3, {})


def test_an_event_that_lost_bytes_in_its_envelope_is_reported(server: KnownServer) -> None:
    server.send([block('{"pub":{"data":' + stamp(n, SIZE)[: 40 if n == 1 else SIZE] + "}}") for n in range(3)])
    assert faults(run(server, streams=1)) == {"wrong_size": 1}


def test_latency_is_the_time_since_the_stamp(server: KnownServer) -> None:
    server.late_by = 0.25
    result = run(server, "--publish=closed", streams=2, seconds=0.4)
    assert 250_000 <= result["latency_us"]["p50"] < 1_000_000


def test_a_refused_stream_is_an_error_not_an_open_stream(server: KnownServer) -> None:
    server.status = 503
    result = run(server, streams=2)
    assert (result["opened"], result["open_bad_status"], result["last_bad_status"]) == (0, 2, 503)


@pytest.mark.parametrize("publishers", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_closed_loop_publishes_arrive_exactly_once_at_every_stream(
    server: KnownServer, publishers: int, batch: int
) -> None:
    result = run(server, "--publish=closed", streams=4, seconds=0.4, publishers=publishers, batch=batch)
    assert server.posted > 0
    assert result["acknowledged_events"] == server.posted
    assert result["events"] == 4 * server.posted
    assert faults(result) == {}
    assert result["client_least"] <= result["window_events"] / 4 <= result["client_most"]


def test_a_lost_or_repeated_event_is_noticed_by_the_streams(
    server: KnownServer,
) -> None:
    server.lose, server.repeat = {3}, {5}
    result = run(server, "--publish=closed", streams=2, seconds=0.3)
    assert faults(result) == {"gaps": 2, "duplicates": 2}


def test_an_acknowledged_event_that_never_arrives_is_undelivered(server: KnownServer) -> None:
    server.lose = set(range(4, 100_000))
    result = run(server, "--publish=closed", streams=2, seconds=0.2, drain=0.2)
    assert faults(result) == {"undelivered": 2 * (result["acknowledged_events"] - 4)}


def test_a_refused_publish_is_no_gap(server: KnownServer) -> None:
    server.refuse = {2, 3}
    result = run(server, "--publish=closed", streams=2, seconds=0.3)
    assert result["publish_refused"] == 2
    assert result["publish_last_bad_status"] == 503
    assert faults(result) == {}


def test_a_connection_closed_after_its_answer_is_opened_again(server: KnownServer) -> None:
    server.answers_per_connection = 5
    result = run(server, "--publish=closed", streams=1, seconds=0.3)
    assert result["publish_reconnects"] >= result["publish_requests"] // 5 - 1 > 0
    assert (result["publish_failed"], faults(result)) == (0, {})


def test_a_missing_answer_is_a_failed_publish_and_no_gap(server: KnownServer) -> None:
    server.drop_connection_at = 4
    result = run(server, "--publish=closed", streams=1, seconds=0.3)
    assert (result["publish_failed"], faults(result)) == (1, {})


def test_open_loop_keeps_its_rate_and_counts_a_stall_for_all_it_delayed(server: KnownServer) -> None:
    server.stall_at, server.stall = 30, 0.4
    result = run(server, "--publish=open", streams=1, seconds=1.0, rate=100)
    assert 80 <= result["publish_requests"] <= 105
    assert result["publish_latency_us"]["max"] >= 400_000
    # 40 of 100 requests were due during the stall; a generator that waits would see one slow request.
    assert result["publish_latency_us"]["p75"] >= 80_000
    assert result["latency_us"]["p75"] >= 80_000
    assert result["publish_backlog_max"] >= 30


def test_stalled_and_trickling_readers_are_counted_apart(server: KnownServer) -> None:
    result = run(server, "--publish=closed", streams=4, never=1, trickle=1, trickle_rate=2000, seconds=0.6)
    assert result["events"] == 2 * server.posted
    assert 0 < result["slow"]["events"] < result["events"] / 8  # 2,000 bytes/s are 15 events/s
    assert faults(result) == {}


def test_channels_are_drawn_by_zipf_and_checked_separately(server: KnownServer) -> None:
    result = run(server, "--publish=closed", streams=8, channels=8, channel="c", seconds=0.4)
    assert faults(result) == {}
    assert result["events"] == server.posted
    assert server.per_channel["c0"] > server.per_channel["c7"]


def test_a_storm_resumes_every_stream_after_its_own_id(server: KnownServer) -> None:
    result = run(server, "--publish=closed", streams=5, warmup=0.1, storm=20)
    assert result["storm"]["complete"] is True
    assert result["storm"]["live_us"]["count"] == 5
    assert result["events"] == 5 * server.posted
    assert faults(result) == {}


def test_a_storm_with_a_missing_replay_is_not_complete(server: KnownServer) -> None:
    server.forget_on_replay = 1
    result = run(server, "--publish=closed", streams=2, warmup=0.1, storm=20, open_timeout=0.5, drain=0.2)
    assert result["storm"]["complete"] is False
    assert faults(result) != {}


def test_the_window_can_end_early_with_a_result(server: KnownServer) -> None:
    flags = [f"--port={server.port}", "--publish=none", "--streams=3", "--seconds=60"]
    with load.Generator(flags) as generator:
        assert generator.line(10)["opened"] == 3
        began = time.monotonic()
        assert generator.finish(10)["opened"] == 3
        assert time.monotonic() - began < 5


def test_a_stamp_has_exactly_the_requested_size() -> None:
    assert len(stamp(12345, SIZE)) == SIZE
    assert json.loads(stamp(7, SIZE))["n"] == 7


def faults(result: load.Result) -> dict[str, int]:
    """Return the faults that the generator reports, if not zero."""
    names = ("gaps", "undelivered", "duplicates", "reordered", "wrong_size", "clock_errors", "broken")
    return {name: result[name] for name in names if result[name]}
