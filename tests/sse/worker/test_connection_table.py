"""The table of timers in the code equals the one in the docs."""

from pathlib import Path

from sse.settings import Settings
from sse.worker.deadlines import TIMERS

PAGE = Path(__file__).parents[3] / "docs" / "go-to-gunicorn.md"


def test_the_docs_show_exactly_the_timers_of_the_code() -> None:
    lines = PAGE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| state | Go |"))
    shown = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        shown.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    assert shown == [tuple(timer) for timer in TIMERS]


def test_every_timer_names_a_setting_that_exists() -> None:
    names = {name.upper() for name in Settings.model_fields}
    assert {timer.setting for timer in TIMERS} <= names
