"""Parts of docs/benchmarks.md that commands write: each lies between two markers, which name its command.

Beside the tables of `python -m bench` there are modules that measure one thing each. `python -m bench.NAME` prints what
it measured, and `--write` writes it into the document. KNOWN lists those that `make bench` runs, one line for each.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "benchmarks.md"
TABLES_SHARE = 0.6  # of a budget; the sections get the rest
PATIENCE = 3.0  # times as long as it usually takes, a section may take


def put(document: str, begin: str, end: str, text: str) -> str:
    """Put `text` between two markers; without markers, they and the text go to the end."""
    if begin not in document or end not in document:
        document = f"{document.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = document.partition(begin)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def write(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Write the section of `python -m bench.NAME`, which begins with its own `##` heading."""
    mark = f"<!-- written by python -m bench.{name}: "
    document.write_text(put(document.read_text(), f"{mark}begin -->", f"{mark}end -->", text))


@dataclass(frozen=True)
class Section:
    """A module of `bench/` that `make bench` runs."""

    name: str
    minutes: float  # as it is
    short: tuple[str, ...]  # arguments that make it shorter, for a budget
    short_minutes: float

    def arguments(self, is_short: bool) -> list[str]:
        """Return the command."""
        return [sys.executable, "-m", f"bench.{self.name}", "--write", *(self.short if is_short else ())]


# In this order, so the first of them are shortened last.
KNOWN = [
    Section("grid", 12.5, ("--minutes", "6"), 6.5),
    Section("compression", 4.0, ("--short",), 0.7),
    Section("power", 3.0, ("--rounds", "2", "--seconds", "1.5"), 1.1),
    Section("followers", 3.0, ("--rounds", "1", "--followers", "1", "--rates", "10000", "30000"), 0.7),
    Section("channels", 3.0, ("--short",), 1.0),
    Section("runs", 5.5, ("--rounds", "1", "--streams", "20", "100", "400", "--seconds", "2"), 1.2),
]


@dataclass(frozen=True)
class Choice:
    """What becomes of a section within a budget: neither if it is left out."""

    section: Section
    as_it_is: bool = False
    is_short: bool = False


def choose(seconds: float | None, known: Iterable[Section]) -> list[Choice]:
    """Decide which sections run, and which of them short, so that as many as possible fit into the time."""
    left = list(known)
    if seconds is None:
        return [Choice(section, as_it_is=True) for section in left]
    minutes, chosen = seconds / 60, []
    while left:
        section = left.pop(0)
        later = sum(other.short_minutes for other in left)
        as_it_is = section.minutes + later <= minutes
        is_short = not as_it_is and section.short_minutes <= minutes
        chosen.append(Choice(section, as_it_is, is_short))
        minutes -= section.minutes if as_it_is else section.short_minutes if is_short else 0
    return chosen


def run(seconds: float | None, known: Iterable[Section] = KNOWN) -> list[str]:
    """Run the sections within `seconds`, if given; return what was left out, and why."""
    began, left, missing = time.monotonic(), list(known), []
    while left:
        # Decided again before each one: the one before may have taken more time, or less.
        choice = choose(None if seconds is None else seconds - (time.monotonic() - began), left)[0]
        section = left.pop(0)
        if not choice.as_it_is and not choice.is_short:
            missing.append(f"`python -m bench.{section.name}`")
            continue
        command = section.arguments(choice.is_short)
        print(f"\n{' '.join(['python', *command[1:]])}  [{time.monotonic() - began:.0f} s]", flush=True)
        usual = 60 * (section.short_minutes if choice.is_short else section.minutes)
        try:
            status = subprocess.run(command, cwd=ROOT, timeout=PATIENCE * usual).returncode
        except subprocess.TimeoutExpired:
            status = -1
        if status:
            missing.append(f"`python -m bench.{section.name}` (it {'failed' if status > 0 else 'took too long'})")
    return missing
