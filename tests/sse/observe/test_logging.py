"""The form of log lines, and the log level."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sse.observe import logging as logs
from sse.observe.logging import JsonFormatter
from sse.runtime.lines import Line, quoted
from sse.settings import Settings


def record(message: Any, *args: Any, created: float = 1_700_000_000.25, **more: Any) -> logging.LogRecord:
    made = logging.getLogger("headwater.x").makeRecord("headwater.x", logging.WARNING, "", 0, message, args, None)
    made.__dict__.update({"created": created, "msecs": round(created % 1 * 1000), **more})
    return made


def formatted(*records: logging.LogRecord) -> list[dict[str, Any]]:
    formatter = JsonFormatter()
    lines = [formatter.format(each) for each in records]
    assert not any("\n" in line for line in lines)
    return [json.loads(line) for line in lines]


def test_a_line_has_its_time_level_logger_and_message() -> None:
    (line,) = formatted(record("%s of %d", "one", 2))
    assert line == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "headwater.x",
        "message": "one of 2",
    }


def test_each_line_has_its_own_time() -> None:
    seconds = [1_700_000_000.999, 1_700_000_001.001, 1_700_000_001.5, 1_700_000_000.0]
    lines = formatted(*(record(Line("stream"), created=second) for second in seconds))
    assert [line["time"][17:] for line in lines] == ["20.999Z", "21.001Z", "21.500Z", "20.000Z"]


def test_fields_are_members_and_numbers_stay_numbers() -> None:
    (line,) = formatted(record(Line("stream", client="::1", events=3, duration=0.5)))
    assert (line["message"], line["client"], line["events"], line["duration"]) == ("stream", "::1", 3, 0.5)


def test_a_traceback_is_one_member() -> None:
    try:
        raise ValueError("told to fail")
    except ValueError:
        (line,) = formatted(record("it failed", exc_info=sys.exc_info()))
    assert line["message"] == "it failed" and line["traceback"].endswith("ValueError: told to fail")


@pytest.mark.parametrize(
    ("message", "args", "text"),
    [
        pytest.param("%d of %d", ("one",), "%d of %d ('one',)", id="arguments that do not fit"),
        pytest.param("half a pair: %s", ("\udc80",), "half a pair: \udc80", id="half a surrogate pair"),
        pytest.param("→ %s", ("é",), "→ é", id="characters beyond ASCII"),
        pytest.param("two\nlines\u2028three", (), "two\nlines\u2028three", id="line ends"),
    ],
)
def test_any_message_becomes_one_line(message: str, args: tuple[Any, ...], text: str) -> None:
    line = JsonFormatter().format(record(message, *args))
    assert json.loads(line.encode())["message"] == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("orders,a:b", "orders,a:b", id="plain"),
        pytest.param(1.5, "1.5", id="a number"),
        pytest.param("", '""', id="nothing"),
        pytest.param("a b", '"a b"', id="a blank, which ends a field"),
        pytest.param("a=b", '"a=b"', id="an equals sign, which begins one"),
        pytest.param('a"b', r'"a\"b"', id="a quote"),
        pytest.param("a\nb", r'"a\nb"', id="a line end"),
        pytest.param("é", r'"\u00e9"', id="beyond ASCII"),
    ],
)
def test_no_value_can_end_its_field_or_its_line(value: object, text: str) -> None:
    assert quoted(value) == text
    assert str(Line("k", name=value)) == f"k name={text}"  # type: ignore[arg-type]


def settings(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environ()


@pytest.fixture
def levels() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("gunicorn.error", "headwater")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_the_levels_of_gunicorns_and_our_lines_follow_the_settings(
    levels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = settings(monkeypatch, LOG_LEVEL="info")
    logs.follow(current)
    current.become(settings(monkeypatch, LOG_LEVEL="error"))()
    assert {logging.getLogger(name).level for name in ("gunicorn.error", "headwater")} == {logging.ERROR}


@pytest.mark.parametrize(
    ("form", "terminal", "formatter"),
    [("json", True, "json"), ("text", False, "text"), ("auto", True, "text"), ("auto", False, "json")],
)
def test_the_form_depends_on_the_setting_or_on_the_terminal(
    form: str, terminal: bool, formatter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    made = logs.config(settings(monkeypatch, LOG_FORMAT=form, LOG_LEVEL="debug"))
    assert made["handlers"]["out"]["formatter"] == formatter
    assert {name: (logger["level"], logger["propagate"]) for name, logger in made["loggers"].items()} == {
        "gunicorn.error": ("DEBUG", False),
        "headwater": ("DEBUG", False),
    }
    assert made["root"]["level"] == "WARNING", "libraries log only warnings"
