"""Sections of the document that modules of their own write: between their markers, and within a budget."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from bench import run, sections
from bench.sections import Section

SLOW, MIDDLE, QUICK = Section("slow", 5, ("-s",), 2), Section("middle", 3, ("-s",), 1), Section("quick", 1, ("-s",), 0.5)


@pytest.mark.parametrize(
    ("minutes", "chosen"),
    [
        pytest.param(None, "LLL", id="no budget"),
        pytest.param(9, "LLL", id="room for all"),
        pytest.param(8.9, "LLS", id="the last one short"),
        pytest.param(6.5, "LSS", id="the first one as it is"),
        pytest.param(3.5, "SSS", id="all short"),
        pytest.param(2.4, "S--", id="only one"),
        pytest.param(1, "-S-", id="the first does not fit, another does"),
        pytest.param(-3, "---", id="no time left"),
    ],
)
def test_a_budget_shortens_sections_before_it_leaves_them_out(minutes: float | None, chosen: str) -> None:
    choices = sections.choose(None if minutes is None else 60 * minutes, [SLOW, MIDDLE, QUICK])
    letters = ["L" if choice.as_it_is else "S" if choice.is_short else "-" for choice in choices]
    assert "".join(letters) == chosen


def test_a_section_replaces_its_own_text_only(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("# Ours\n")
    sections.write("one", "## One\n\nold", document)
    sections.write("two", "## Two", document)
    sections.write("one", "## One\n\nnew", document)
    text = document.read_text()
    assert text.index("# Ours") < text.index("new") < text.index("## Two")
    assert "old" not in text and text.count("## One") == 1


def test_a_section_that_fails_or_hangs_is_named_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {"fails": "raise SystemExit(3)", "hangs": "import time; time.sleep(60)", "works": "print('as it is')"}
    monkeypatch.setattr(
        Section, "arguments", lambda self, is_short: [sys.executable, "-c", f"{programs[self.name]} # {is_short}"]
    )
    known = [Section("fails", 1, (), 1), Section("hangs", 0.01, (), 0.01), Section("works", 1, (), 1)]
    assert sections.run(None, known) == ["`python -m bench.fails` (it failed)", "`python -m bench.hangs` (it took too long)"]


@pytest.mark.parametrize("section", sections.KNOWN, ids=lambda section: section.name)
def test_every_section_is_a_module_that_takes_its_arguments(
    section: Section, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"bench.{section.name}")
    monkeypatch.setattr(sys, "argv", [*section.arguments(is_short=True)[2:], "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    usage = capsys.readouterr().out
    assert all(option in usage for option in ("--write", *section.short) if option.startswith("--"))
    assert section.short and 0 < section.short_minutes < section.minutes <= 13


def test_only_a_run_that_writes_the_documentation_runs_the_sections() -> None:
    parse = run._parser().parse_args
    assert run._has_sections(parse([])) and run._has_sections(parse(["--budget", "30"]))
    for narrowed in (["--quick"], ["--peers", "go"], ["--tables"], ["--budget", "30", "--out", "/tmp"]):
        assert not run._has_sections(parse(narrowed))


def test_all_sections_fit_into_the_budget_that_the_documentation_names() -> None:
    choices = sections.choose(35 * 60 * (1 - sections.TABLES_SHARE), sections.KNOWN)
    assert all(choice.as_it_is or choice.is_short for choice in choices)
