"""docs/failure-modes.md agrees with the lab: each failure has a section and a test, and no link is dead."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/failure-modes.md").read_text()
SECTIONS = dict(re.findall(r"^## (\d+)\. .*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_each_of_the_thirteen_has_a_section_with_all_of_its_parts() -> None:
    assert list(SECTIONS) == [str(number) for number in range(1, 14)]
    for number, text in SECTIONS.items():
        for part in ("**Cause.**", "**See it.**", "**Fix anywhere.**", "**Headwater**", "Test: `"):
            assert part in text, f"{number}: no {part}"


def test_each_section_names_its_own_test_and_each_file_of_the_lab_has_a_section() -> None:
    named = {number: re.findall(r"^Test: `(.+)`$", text, re.MULTILINE) for number, text in SECTIONS.items()}
    lab = sorted(path.relative_to(ROOT).as_posix() for path in Path(__file__).parent.glob("test_[0-9]*.py"))
    assert sorted(path for paths in named.values() for path in paths) == lab
    for number, (path,) in named.items():
        assert Path(path).name.startswith(f"test_{int(number):02}_")
        assert (ROOT / path).is_file()


def test_the_table_leads_to_every_section_and_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links <= anchors, sorted(links - anchors)
    table = PAGE.partition("## Which one is it?")[2].partition("\n## ")[0]
    assert {int(number) for number in re.findall(r"\[(\d+)\]\(#", table)} == set(range(1, 14))
    for target in re.findall(r"\]\((?!#|http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_no_section_claims_an_event_that_the_kubelet_does_not_write() -> None:
    """The wordings of the kubelet: pkg/kubelet/prober/prober.go, kuberuntime_manager.go."""
    known = re.compile(
        r"(Liveness|Readiness|Startup) probe (failed: (Get \"http.*|HTTP probe failed with statuscode: \d+)|errored .*)"
        r"|Container \w+ failed (liveness|startup) probe, will be restarted"
        r"|Stopping container \w+|Started container \w+|Back-off restarting failed container \w+ in pod .*"
    )
    events = re.findall(r"^    (?:Warning|Normal) +\w+ +(.+)$", PAGE, re.MULTILINE)
    assert len(events) > 10
    assert not [event for event in events if not known.fullmatch(event)]
