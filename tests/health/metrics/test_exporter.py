"""The exposition, read by prometheus_client's own parser; files are written by several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from health.metrics import exporter as metrics
from health.metrics import files as metrics_files
from health.metrics.exporter import Exporter, exposition
from health.metrics.table import BOARD_ROWS, ROWS
from health.signs.board import DRAINING, RUNNING, Board, Record

ROOT = Path(__file__).parents[3]


def samples(text: bytes) -> dict[str, float]:
    """``name{label="value"}`` → value."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def values(opened: int = 1, **more: object) -> dict[str, object]:
    return {"opened": opened, **more}


def as_process(monkeypatch: pytest.MonkeyPatch, directory: Path, pid: int, numbers: dict[str, Any]) -> None:
    monkeypatch.setattr(os, "getpid", lambda: pid)
    exporter = Exporter(lambda: directory)
    exporter.flush(numbers)
    exporter.close()
    monkeypatch.undo()


def test_counters_of_all_processes_are_added_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_process(monkeypatch, tmp_path, 11, values(5, closed=Counter(client=2, drain=1)))
    as_process(monkeypatch, tmp_path, 12, values(7, closed=Counter(client=3)))
    found = samples(exposition(tmp_path, Board.create(1)))
    assert found["sse_streams_opened_total"] == 12
    assert found['sse_streams_closed_total{reason="client"}'] == 5
    assert found['sse_streams_closed_total{reason="drain"}'] == 1


def test_flushed_values_are_absolute(tmp_path: Path) -> None:
    exporter = Exporter(lambda: tmp_path)
    for opened in (3, 3, 9):
        exporter.flush(values(opened))
    assert samples(exposition(tmp_path, Board.create(1)))["sse_streams_opened_total"] == 9
    exporter.close()
    exporter.flush(values(1))


def test_a_histogram_is_exported_with_cumulated_buckets_sum_and_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = SimpleNamespace(bounds=(0.1, 1.0), counts=[1, 2, 4], total=9.5)
    as_process(monkeypatch, tmp_path, 11, values(delivery=state))
    as_process(monkeypatch, tmp_path, 12, values(delivery=state))
    found = samples(exposition(tmp_path, Board.create(1)))
    assert found['sse_delivery_seconds_bucket{le="0.1"}'] == 2
    assert found['sse_delivery_seconds_bucket{le="1.0"}'] == 6
    assert found['sse_delivery_seconds_bucket{le="+Inf"}'] == 14
    assert found["sse_delivery_seconds_count"] == 14
    assert found["sse_delivery_seconds_sum"] == 19.0


def test_the_log_s_size_is_not_added_up_over_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for pid, size, free in ((11, 50.0, 900.0), (12, 70.0, 880.0), (13, 60.0, 890.0)):
        as_process(monkeypatch, tmp_path, pid, values(log_bytes=size, log_free=free, log_oldest=free, settings_refused=1))
    found = samples(exposition(tmp_path, Board.create(1)))
    assert (found["sse_log_bytes"], found["sse_log_free_bytes"]) == (70.0, 880.0)
    assert found["sse_log_oldest_timestamp_seconds"] == 900.0
    assert found["sse_settings_refused"] == 3
    for pid in (11, 12, 13):
        metrics_files.fold(tmp_path, pid)
    assert "sse_log_bytes" not in samples(exposition(tmp_path, Board.create(1)))


@pytest.mark.parametrize(
    ("buckets", "before", "expected"),
    [
        pytest.param({0.1: 98, 1.0: 2, float("inf"): 0}, {}, 1.0, id="the bucket that holds it"),
        pytest.param({0.1: 99, 1.0: 1, float("inf"): 0}, {}, 0.1, id="exactly at its end"),
        pytest.param({0.1: 100, 1.0: 5}, {0.1: 100, 1.0: 4}, 1.0, id="only what is new"),
        pytest.param({0.1: 9, 1.0: 5}, {0.1: 9, 1.0: 5}, None, id="nothing new"),
        pytest.param({}, {}, None, id="nothing at all"),
        pytest.param({0.1: 0, 1.0: 0, float("inf"): 3}, {}, 2.0, id="above the last bound"),
    ],
)
def test_a_quantile_covers_the_observations_since_the_last_report(
    buckets: dict[float, float], before: dict[float, float], expected: float | None
) -> None:
    assert metrics.quantile(0.99, buckets, before) == expected


def test_a_state_that_is_empty_again_is_exported_as_0(tmp_path: Path) -> None:
    exporter = Exporter(lambda: tmp_path)
    exporter.flush({"streams": {"live": 4, "lagging": 2}})
    exporter.flush({"streams": {"live": 5}})
    found = samples(exposition(tmp_path, Board.create(1)))
    assert (found['sse_streams{state="live"}'], found['sse_streams{state="lagging"}']) == (5, 0)
    exporter.close()


def test_when_workers_die_their_counters_stay_and_their_gauges_disappear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = SimpleNamespace(bounds=(1.0,), counts=[1, 1], total=2.0)
    for pid in (11, 12, 13):
        as_process(
            monkeypatch,
            tmp_path,
            pid,
            values(5, streams={"live": 10}, resets=Counter(expired=1), passes=state),
        )
    for pid in (11, 12):
        metrics_files.fold(tmp_path, pid)
    found = samples(exposition(tmp_path, Board.create(1)))
    assert found['sse_streams{state="live"}'] == 10
    assert found["sse_streams_opened_total"] == 15
    assert found['sse_resets_total{reason="expired"}'] == 3
    assert found["sse_fanout_pass_seconds_count"] == 6
    metrics_files.fold(tmp_path, 13)
    assert samples(exposition(tmp_path, Board.create(1)))["sse_streams_opened_total"] == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_sse-0.db", "histogram_sse-0.db"]


def test_a_worker_with_a_reused_process_id_counts_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_process(monkeypatch, tmp_path, 11, values(5))
    metrics_files.fold(tmp_path, 11)
    as_process(monkeypatch, tmp_path, 11, values(2))
    assert samples(exposition(tmp_path, Board.create(1)))["sse_streams_opened_total"] == 7


def test_an_apps_own_counters_are_kept_as_well(tmp_path: Path) -> None:
    code = (
        "from prometheus_client import Counter, Gauge; import os\n"
        "Counter('orders', 'help', ['kind']).labels('new').inc(4)\n"
        "Gauge('depth', 'help', multiprocess_mode='livesum').set(3); print(os.getpid())"
    )
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=20
    )
    before = samples(exposition(tmp_path, Board.create(1)))
    assert (before['orders_total{kind="new"}'], before["depth"]) == (4, 3)
    metrics_files.fold(tmp_path, int(done.stdout))
    after = samples(exposition(tmp_path, Board.create(1)))
    assert after['orders_total{kind="new"}'] == 4
    assert "depth" not in after


@pytest.mark.parametrize(
    "damage", [b"\x00" * 100, b"\xff" * 64, b"\x40\x00\x00\x00" + b"\x00" * 60, b"", b"\x00\x10\x00\x00"]
)
def test_a_damaged_file_of_a_killed_worker_does_not_break_scrapes(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "counter_sse-11.db").write_bytes(damage)
    metrics_files.fold(tmp_path, 11)
    assert not (tmp_path / "counter_sse-11.db").exists()
    exposition(tmp_path, Board.create(1))


def test_an_incomplete_file_does_not_break_a_scrape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    as_process(monkeypatch, tmp_path, 11, values(5))
    half_made = tmp_path / "counter_sse-12.db"
    half_made.write_bytes(b"")
    monkeypatch.setattr(time, "sleep", lambda seconds: half_made.unlink(missing_ok=True))
    assert samples(exposition(tmp_path, Board.create(1)))["sse_streams_opened_total"] == 5


def test_folding_does_not_touch_the_files_of_other_processes(tmp_path: Path) -> None:
    for name in ("headwater.db", "counter_sse-1.db", "counter_sse-111.db", "gauge_livesum_sse-1.db"):
        (tmp_path / name).write_bytes(b"\x08" + b"\x00" * 63)
    metrics_files.fold(tmp_path, 11)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_scrape_starts_again_if_counters_are_moved_meanwhile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shared = Board.create(1)
    as_process(monkeypatch, tmp_path, 11, values(5))
    pauses = []
    folding = shared.folding()
    folding.__enter__()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            folding.__exit__(None, None, None)

    monkeypatch.setattr(time, "sleep", pause)
    assert samples(exposition(tmp_path, shared))["sse_streams_opened_total"] == 5
    assert len(pauses) == 3


def test_a_master_that_died_while_moving_counters_does_not_block_scrapes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = Board.create(1)
    as_process(monkeypatch, tmp_path, 11, values(5))
    monkeypatch.setattr(metrics, "FOLD_PAUSE", 0.001)
    with shared.folding():
        assert samples(exposition(tmp_path, shared))["sse_streams_opened_total"] == 5


def test_the_ages_of_a_stuck_worker_grow(tmp_path: Path) -> None:
    now = time.monotonic()
    shared = Board.create(4)
    shared.set_expected(3)
    shared.write(Record(0, 10, 1, RUNNING, True, now - 90, now - 0.1, now - 0.5, 0.02, 0.3, 5))
    shared.write(Record(1, 11, 1, RUNNING, True, now - 90, now - 40.0, now - 41.0, 0.02, 0.3, 5))
    shared.write(Record(2, 12, 1, DRAINING, True, now - 8, now - 0.1, 0.0, 0.02, 0.3, 5))
    found = samples(exposition(tmp_path, shared))
    assert found['health_canary_age_seconds{worker="0"}'] == pytest.approx(0.5, abs=0.3)
    assert found['health_canary_age_seconds{worker="1"}'] == pytest.approx(41.0, abs=0.3)
    assert found['health_canary_age_seconds{worker="2"}'] == pytest.approx(8.0, abs=0.3)
    assert found['health_loop_lag_seconds{worker="0"}'] == 0.02
    assert found['health_loop_lag_seconds{worker="1"}'] == pytest.approx(39.5, abs=0.3)
    assert found['sse_log_tail_age_seconds{worker="1"}'] == pytest.approx(40.3, abs=0.3)
    assert (found['health_workers{state="running"}'], found['health_workers{state="draining"}']) == (2, 1)
    assert found["health_workers_expected"] == 3


def test_workers_of_an_older_generation_are_not_shown(tmp_path: Path) -> None:
    now = time.monotonic()
    shared = Board.create(2)
    shared.write(Record(0, 10, 1, DRAINING, True, now, now))
    shared.bump_generation()
    shared.write(Record(1, 11, 2, RUNNING, True, now, now))
    found = samples(exposition(tmp_path, shared))
    assert 'health_loop_lag_seconds{worker="1"}' in found
    assert 'health_loop_lag_seconds{worker="0"}' not in found


def test_every_metric_of_the_contract_is_exported_with_its_help(tmp_path: Path) -> None:
    contract = """sse_streams{state} sse_streams_opened_total sse_streams_closed_total{reason}
        sse_events_published_total sse_events_delivered_total sse_bytes_sent_total sse_gzip_text_bytes_total
        sse_gzip_sent_bytes_total sse_resets_total{reason}
        sse_replayed_events_total sse_delivery_seconds sse_fanout_pass_seconds sse_log_tail_age_seconds
        health_loop_lag_seconds health_canary_age_seconds sse_connections{state}"""
    ours = {row.name: row.label for row in ROWS} | dict.fromkeys(BOARD_ROWS, "")
    for entry in contract.split():
        name, _, label = entry.rstrip("}").partition("{")
        assert ours.get(name) == label, entry
    assert all(row.help for row in ROWS)
    assert all(BOARD_ROWS.values())


def test_the_service_has_the_attributes_of_all_rows() -> None:
    stats = pytest.importorskip("sse.streams.stats").Stats()
    elsewhere = {"connections", "streams", "log_bytes", "log_free", "log_oldest"}
    missing = [row.attribute for row in ROWS if not hasattr(stats, row.attribute)]
    assert set(missing) <= elsewhere


def test_files_are_fully_allocated(tmp_path: Path) -> None:
    exporter = Exporter(lambda: tmp_path)
    exporter.flush(values(3, closed=Counter(client=1), streams={"live": 1}))
    files = list(tmp_path.glob("*.db"))
    assert len(files) > 1
    assert [path for path in files if path.stat().st_blocks * 512 < path.stat().st_size] == [], "a hole raises SIGBUS on a full disk"
    exporter.close()


# Runs in a process of its own, because a failure here is a SIGBUS.
FULL = """
import sys
from pathlib import Path
from types import SimpleNamespace
from health.metrics import exporter as metrics
from health.signs.board import Board
from tests.health.metrics.test_exporter import samples

place = Path(sys.argv[1])
told = []
metrics.logger = SimpleNamespace(warning=lambda text, *args: told.append(text % args))
clock = [100.0]
metrics.time = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None)
board = Board.create(2)
board.set_expected(2)

def fill():
    try:
        with open(place / "filler", "ab") as filler:
            while True:
                filler.write(bytes(4096))
                filler.flush()
    except OSError:
        pass

def exported():
    return samples(metrics.exposition(place, board)).get("sse_streams_opened_total")

exporter = metrics.Exporter(lambda: place)
fill()
for opened in range(3):
    exporter.flush({"opened": opened, "streams": {"live": 1}})
assert len(told) == 1 and "off" in told[0] and str(place) in told[0], told
assert exported() is None and sorted(path.name for path in place.iterdir()) == ["filler"]
(place / "filler").unlink()
exporter.flush({"opened": 4})
assert exported() is None, "it waits before it tries again"
clock[0] += metrics.NO_ROOM_PAUSE
exporter.flush({"opened": 5})
assert exported() == 5 and len(told) == 2 and "on again" in told[1], told

fill()
exporter.flush({"opened": 6, "resets": {"expired": 1}})
assert exported() == 6, "allocated files go on"
exporter.flush({"opened": 7, "resets": {f"reason-{n}": 1 for n in range(2000)}})
assert len(told) == 3 and exported() is None, "a file cannot grow"
(place / "filler").unlink()
clock[0] += metrics.NO_ROOM_PAUSE
exporter.flush({"opened": 8, "resets": {f"reason-{n}": 1 for n in range(2000)}})
assert exported() == 8, "there is room to grow"
board.mark_started()
print("survived")
"""


def test_without_room_metrics_are_switched_off_until_there_is_some(small_disk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, small_disk], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "survived\n"), done
