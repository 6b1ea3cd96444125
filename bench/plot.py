"""A few lines of SVG: bars, and lines on logarithmic axes. No dependency, and the same bytes for the same figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from pathlib import Path

from bench.methods import Case
from bench.results import Results
from bench.scenarios import Scenario, label

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 84, 190, 34, 46
COLOURS = ("#0b6e4f", "#c1440e", "#1f4e9e", "#8a5a00", "#7b2d8b", "#444444", "#b0006d", "#00808a", "#6b6b00", "#5a3ea6")
PERCENTILES = ("p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99")
STREAMS_BY_SIZE = 1000
IDLE = (
    ("rss", "rss_per_stream", "RSS per idle stream", "bytes"),
    ("kernel", "kernel_per_stream", "Kernel memory per idle stream, both ends", "bytes"),
    ("cpu", "cpu_us_per_stream", "CPU time per idle stream and second", "µs"),
    ("opening", "open_rate", "Opening rate", "streams/s"),
)

Series = dict[str, list[tuple[float, float]]]  # name → points


def draw(results: Results, scenario: Scenario) -> list[Path]:
    """Draw the plots that the scenario's figures allow; return the files."""
    folder = results.folder / "plots"
    pictures: list[Path] = []

    def keep(name: str, svg: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.svg"
        path.write_text(svg)
        pictures.append(path)

    cases = results.cases(scenario.name)
    if scenario.name == "saturation":
        for size in sorted({case["size"] for case in cases}):
            series = _growth(results, scenario, [case for case in cases if case["size"] == size])
            words = f"Delivered events/s, {label({'size': size})} events"
            keep(f"saturation-{size}", _picture(series, words, "streams", "events/s"))
        by_size = [case for case in cases if case["streams"] == STREAMS_BY_SIZE]
        if len(by_size) > 1:
            series = _growth(results, scenario, by_size, axis="size")
            words = f"Delivered events/s by their size, {STREAMS_BY_SIZE:,} streams"
            keep("saturation-by-size", _picture(series, words, "bytes", "events/s"))
    elif scenario.name == "latency":
        for case in cases:
            keep(f"latency-{case['streams'] * case['rate']}", latency_curve(results, scenario, case))
    elif scenario.name == "idle":
        for name, metric, words, unit in IDLE:
            if series := _growth(results, scenario, cases, metric):
                keep(f"idle-{name}", _picture(series, words, "streams", unit))
    return pictures


def _title(results: Results, peer: str) -> str:
    return results.peers.get(peer, {}).get("title", peer)


def _growth(results: Results, scenario: Scenario, cases: list[Case], metric: str = "", axis: str = "streams") -> Series:
    """Return a metric, else the headline, over the number of streams, or over `axis`."""
    series: Series = {}
    for peer in results.measured_peers(scenario.name):
        points = []
        for case in cases:
            value = results.median(scenario.name, peer, case, metric or scenario.headline)
            if value is not None and value > 0:
                points.append((float(case[axis]), value))
        if points:
            series[_title(results, peer)] = sorted(points)
    return series


def _picture(series: Series, title: str, x_title: str, y_title: str) -> str:
    """Draw lines over the number of streams, or bars if there is only one number."""
    xs = {x for points in series.values() for x, _ in points}
    if len(xs) == 1:
        return bars(
            {name: points[0][1] for name, points in series.items()}, f"{title}, {min(xs):,.0f} streams", y_title
        )
    return lines(series, title, x_title, y_title)


def latency_curve(results: Results, scenario: Scenario, case: Case) -> str:
    """Draw latency by percentile; the x axis is 1 / (1 - q), so that each nine has the same width."""
    series: Series = {}
    for peer in results.measured_peers(scenario.name):
        points = []
        for name in PERCENTILES:
            value = results.median(scenario.name, peer, case, f"latency_us.{name}")
            if value:
                points.append((1 / (1 - float(name[1:]) / 100), value / 1e3))
        if points:
            series[_title(results, peer)] = points
    ticks = [(1 / (1 - float(p[1:]) / 100), p) for p in ("p50", "p90", "p99", "p99.9", "p99.99")]
    words = f"Latency at {case['streams'] * case['rate']:,} deliveries/s ({label(case)})"
    return lines(series, words, "percentile", "ms", ticks)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return a logarithmic scale: low → start, high → end."""
    span = math.log10(high / low) or 1.0
    return lambda value: start + (end - start) * math.log10(value / low) / span


def _decades(low: float, high: float) -> list[float]:
    return [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {unit}"
    return f"{value:g}"


def _text(x: float, y: float, words: str, anchor: str = "middle", size: int = 12, colour: str = "#222222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{escape(words)}</text>"
    )


def _frame(parts: list[str], title: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="system-ui, sans-serif"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join([head, _text(width / 2, 20, title, size=15), *parts, "</svg>"]) + "\n"


def lines(
    series: Series, title: str, x_title: str, y_title: str, x_ticks: list[tuple[float, str]] | None = None
) -> str:
    """Draw lines on logarithmic axes, each series named at its right end."""
    points = [point for each in series.values() for point in each]
    if not points:
        return _frame([], title)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    decades = _decades(min(ys), max(ys))
    x_of = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_of = _scale(decades[0], decades[-1], HEIGHT - BOTTOM, TOP)
    parts = []
    for value in decades:
        y = y_of(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, _short(value), "end"))
    for x, words in x_ticks or [(x, _short(x)) for x in sorted(set(xs))]:
        parts.append(_text(x_of(x), HEIGHT - BOTTOM + 18, words))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title))
    parts.append(_text(LEFT - 8, TOP - 8, y_title, "end"))
    ends = sorted((y_of(each[-1][1]), name) for name, each in series.items())
    label_y, above = {}, float("-inf")
    for y, name in ends:  # move names down that would overlap
        above = max(y, above + 14)
        label_y[name] = above
    for index, (name, each) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in each)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>' for x, y in each]
        parts.append(_text(x_of(each[-1][0]) + 8, label_y[name] + 4, name, "start", 11, colour))
    return _frame(parts, title)


def bars(values: dict[str, float], title: str, unit: str) -> str:
    """Draw horizontal bars from zero, one per peer, with its value at the end."""
    step, left, right = 30, 250, 130
    height = TOP + step * len(values) + 16
    most = max(values.values(), default=1.0)
    parts = []
    for index, (name, value) in enumerate(values.items()):
        y = TOP + step * index
        length = (WIDTH - left - right) * value / most
        colour = COLOURS[0] if name.startswith("Headwater") else "#9aa5b1"
        parts.append(_text(left - 8, y + 18, name, "end"))
        parts.append(f'<rect x="{left}" y="{y + 4}" width="{length:.1f}" height="{step - 10}" fill="{colour}"/>')
        parts.append(_text(left + length + 8, y + 18, f"{value:,.0f} {unit}", "start"))
    return _frame(parts, title, WIDTH, height)
