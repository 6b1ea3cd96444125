"""From single runs to tables: medians, ratios, doubts; hand-written prose stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import methods, peers, plot, report, run, scenarios, sections, tables
from bench.results import Results, pick

SATURATION = scenarios.KNOWN["saturation"].quick()
CASE = SATURATION.cases[0]


def results_of(folder: Path, rates: dict[str, list[float]], **extra: Any) -> Results:
    results = Results(folder)
    results.begin(SATURATION)
    for name, values in rates.items():
        results.peers[name] = {"title": peers.KNOWN[name].title, "version": "1"}
        for number, value in enumerate(values):
            metrics = {"events_per_second": value, "events": 1000, **extra.get(name, {})}
            results.add(SATURATION, peers.KNOWN[name], CASE, number, metrics)
    results.save()
    return results


def test_the_ratio_is_taken_from_the_medians(tmp_path: Path) -> None:
    results = results_of(tmp_path, {"headwater": [900.0, 600.0, 10.0], "go": [100.0, 99.0, 5000.0]})
    text = report.write(results).read_text()
    assert "| 6.00 × |" in text


def test_prose_outside_the_markers_survives_the_next_run(tmp_path: Path) -> None:
    document = tmp_path / sections.DOCUMENT.name
    bars, tables = (report.BARS_BEGIN, report.BARS_END), (report.BEGIN, report.END)
    document.write_text("\n".join(["# Ours", *bars, "How.", tables[0], "outdated", tables[1], "What it means."]))
    report.write(results_of(tmp_path, {"go": [5.0]}))
    report.write(results_of(tmp_path, {"go": [77.0]}))
    new = document.read_text()
    assert new.startswith(f"# Ours\n{report.BARS_BEGIN}\n\n|  | bar |")
    assert f"{report.BARS_END}\nHow.\n{report.BEGIN}\n\n## What was measured" in new
    assert new.endswith(f"{report.END}\nWhat it means.")
    assert "| 77 (1) |" in new and "| 5 (1) |" not in new and "outdated" not in new


def test_a_document_without_markers_gets_the_tables_at_its_end(tmp_path: Path) -> None:
    (tmp_path / sections.DOCUMENT.name).write_text("# Ours\n")
    text = report.write(results_of(tmp_path, {"go": [5.0]})).read_text()
    assert text.startswith("# Ours\n")
    assert text.index("| bar |") < text.index("| 5 (1) |")


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        pytest.param({"generator_saturated": True}, "a lower bound", id="the generator was the bottleneck"),
        pytest.param({"gaps": 600, "undelivered": 400}, "lost or late: 50.0%", id="events lost"),
        pytest.param({"duplicates": 3}, "3 duplicates", id="duplicates"),
        pytest.param({"closed_early": 2}, "2 streams cut", id="streams cut"),
        pytest.param({"held": 0.031}, "delivered 3% of the rate", id="a fixed rate that was too much"),
        pytest.param(
            {"other_cpu": 1.5}, "other processes used up to 150% of a core", id="a machine that was not quiet"
        ),
    ],
)
def test_doubts_about_a_figure_are_listed_under_its_table(
    tmp_path: Path, metrics: dict[str, Any], words: str
) -> None:
    text = report.write(results_of(tmp_path, {"go": [5.0]}, go=metrics)).read_text()
    assert "| 5<sup>1</sup> (1) |" in text
    assert words in text


def test_what_a_peer_has_stored_stands_beside_its_publishes(tmp_path: Path) -> None:
    results, publish = Results(tmp_path), scenarios.KNOWN["publish"]
    results.begin(publish)
    for name in ("headwater", "go", "mercure"):
        peer = peers.KNOWN[name]
        results.peers[name] = {"title": peer.title, "version": "1", "stores": peer.stores}
        results.add(publish, peer, publish.cases[0], 0, {"published_per_second": 9.0})
    rows = [line for line in report.write(results).read_text().splitlines() if line.startswith(("| Mercure", "| Go"))]
    assert [row.rpartition("| 1 | ")[2] for row in rows[2:]] == ["nothing |", f"{peers.KNOWN['mercure'].stores} |"]
    assert all(row.endswith(stored) for row, stored in zip(rows[:2], ["| nothing |", "power cut |"], strict=True))


def test_a_peer_that_could_not_run_is_named_with_the_reason(tmp_path: Path) -> None:
    results = results_of(tmp_path, {"go": [1.0]})
    results.skip(peers.KNOWN["mercure"], "go is not installed")
    assert "Not run: Mercure (Bolt) (go is not installed)." in report.write(results).read_text()


def test_a_new_run_of_one_scenario_keeps_the_others(tmp_path: Path) -> None:
    results_of(tmp_path, {"go": [1.0]})
    again = Results.load(tmp_path)
    latency = scenarios.KNOWN["latency"]
    again.begin(latency)
    again.add(latency, peers.KNOWN["go"], latency.cases[0], 0, {"latency_us": {"p50": 1.0, "p99.9": 2.0}})
    again.save()
    third = Results.load(tmp_path)
    assert set(third.scenarios) == {"saturation", "latency"}
    assert third.median("latency", "go", latency.cases[0], "latency_us.p99.9") == 2.0


def test_a_missing_metric_is_none_not_zero() -> None:
    assert pick({"failed": "no answer"}, "latency_us.p99") is None


@pytest.mark.parametrize("count", [1, 3])
def test_plots_are_well_formed_xml_and_name_every_peer(tmp_path: Path, count: int) -> None:
    series = {f"peer <{n}> & co": [(10.0**n, 3.0 * n + 1) for n in range(1, count + 1)] for n in range(3)}
    svg = plot.lines(series, "a < b", "streams", "events/s")
    words = [element.text for element in ElementTree.fromstring(svg).iter() if element.text]
    assert all(name in words for name in series)
    ElementTree.fromstring(plot.bars({"a & b": 3.0, "c": 0.0}, "bars", "ms"))


def test_saturation_is_drawn_over_streams_and_over_the_size_of_events(tmp_path: Path) -> None:
    results, scenario = Results(tmp_path), scenarios.KNOWN["saturation"]
    results.begin(scenario)
    for case in scenario.cases:
        results.add(scenario, peers.KNOWN["go"], case, 0, {"events_per_second": 10.0 * case["size"] + case["streams"]})
    names = [path.stem for path in plot.draw(results, scenario)]
    assert names == ["saturation-100", "saturation-1024", "saturation-16384", "saturation-by-size"]


def test_the_command_line_picks_streams_and_sizes() -> None:
    options = run._parser().parse_args(["--scenario", "saturation", "--streams", "10,20", "--size", "100"])
    shaped = run._shaped(scenarios.KNOWN["saturation"], options)
    assert shaped.cases == [{"size": 100, "streams": 10}, {"size": 100, "streams": 20}]


def test_only_a_run_with_every_table_writes_into_the_documentation() -> None:
    parse = run._parser().parse_args
    for complete in ([], ["--budget", "30"]):
        assert run._out(parse(complete)) == run.ROOT / "docs"
    for narrowed in (["--quick"], ["--peers", "go"], ["--seconds", "1"], ["--scenario", "idle"]):
        assert run._out(parse(narrowed)) == run.ROOT / "build" / "bench"
    assert run._out(parse(["--quick", "--out", "docs"])) == Path("docs")


def test_an_interrupted_run_writes_the_report_of_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(queue: list[Any], clock: Any, began: float, results: Results) -> None:
        results.begin(SATURATION)
        results.add(SATURATION, peers.KNOWN["headwater"], CASE, 0, {"events_per_second": 123.0})
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_execute", interrupted)
    assert run.main(["--peers", "headwater", "--scenario", "saturation", "--out", str(tmp_path)]) == 130
    assert "| 123 (1) |" in (tmp_path / sections.DOCUMENT.name).read_text()
    assert Results.load(tmp_path).runs("saturation", "headwater", CASE) == [{"events_per_second": 123.0}]


def test_a_number_of_streams_adds_none_to_a_case_without_streams() -> None:
    options = run._parser().parse_args(["--scenario", "logs", "--streams", "10"])
    cases = run._shaped(scenarios.KNOWN["logs"], options).cases
    assert cases == [{"size": 100, "streams": 10}, *scenarios.PUBLISHING]


@pytest.mark.parametrize("more", [["--rounds", "3"], ["--streams", "10"], ["--quick"]])
def test_a_budget_excludes_options_that_it_decides(more: list[str]) -> None:
    with pytest.raises(SystemExit):
        run._options(["--budget", "30", *more])


def test_a_budget_too_small_for_anything_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run._options(["--budget", "1"])
    assert "1 minutes are too few" in capsys.readouterr().err


def test_every_scenario_has_a_table_that_can_be_written(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for scenario in scenarios.KNOWN.values():
        results.begin(scenario)
        for peer in (peers.KNOWN[name] for name in scenario.only or ("headwater", "go")):
            for case in scenario.cases:
                results.add(scenario, peer, case, 0, {"events": 1, scenario.headline.partition(".")[0]: 1.0})
    text = report.write(results).read_text()
    for scenario in scenarios.KNOWN.values():
        assert f"## {scenario.title}" in text
        assert scenario.table == "pivot" or scenario.name in tables.COLUMNS


def test_the_report_names_machine_command_rounds_and_what_was_left_out(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.machine, results.command = {"processor": "A fast one"}, "python -m bench --budget 30"
    results.begin(SATURATION)
    for number in range(3):
        results.add(SATURATION, peers.KNOWN["go"], CASE, number, {"events_per_second": 5.0, "events": 1})
    results.omitted = ["Saturation, 16 KB"]
    text = report.write(results).read_text()
    for words in ("A fast one", "`python -m bench --budget 30`, 3 rounds", "for lack of time: Saturation, 16 KB."):
        assert words in text


def test_user_and_kernel_time_of_a_delivered_event_are_separate(tmp_path: Path) -> None:
    metrics = {"server_cpu": 1.0, "server_kernel": 0.75, "reads": 250}
    text = report.write(results_of(tmp_path, {"go": [500_000.0]}, go=metrics)).read_text()
    assert "| Go net/http | 100.0 % | 0.50 | 1.50 | 4.00 |" in text


def test_a_server_that_answers_with_the_first_event_has_no_opening_rate(tmp_path: Path) -> None:
    idle = scenarios.KNOWN["idle"].quick()
    results = Results(tmp_path)
    results.begin(idle)
    opened = {"open_rate": 24_000.0, "open_seconds": 0.04, "open_latency_us": {"p99": 12_400.0}, "open_cpu_us": 3040.0}
    for name in ("go", "flask-sse"):
        metrics = methods.opening_of(peers.KNOWN[name].target, {"rss_per_stream": 9.0, "cpu_us_per_stream": 1.0, **opened})
        results.peers[name] = {"title": peers.KNOWN[name].title, "version": "1"}
        results.add(idle, peers.KNOWN[name], idle.cases[0], 0, metrics)
    go, flask_sse = [line for line in report.write(results).read_text().splitlines() if "| 3,040 |" in line]
    assert "| 24 k | 0.04 s | 12.4 | 3,040 |" in go and "<sup>" not in go
    assert "|  |  |  | 3,040 |" in flask_sse and "<sup>1</sup>" in flask_sse
    picture = (tmp_path / "plots" / "idle-opening.svg").read_text()
    assert peers.KNOWN["go"].title in picture and peers.KNOWN["flask-sse"].title not in picture
