"""docs/doctor.md has every rule, as the table prints it; its links lead somewhere; action.yml does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from health.doctor.cli import main
from health.doctor.finding import RULES
from health.doctor.live.rules import live_rules
from health.doctor.symptoms import SYMPTOMS
from health.doctor.table import table
from tests.doctor.manifests import container, deployment, text_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/doctor.md").read_text()


def test_the_page_has_the_table_as_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rules"]) == 0
    printed = capsys.readouterr().out.strip()
    assert printed == table()
    assert PAGE.partition("<!-- rules: begin -->")[2].partition("<!-- rules: end -->")[0].strip() == printed


def test_ids_and_names_are_each_used_once() -> None:
    rules = [*RULES.values(), *live_rules(), *SYMPTOMS]
    assert len({rule.id for rule in rules}) == len({rule.name for rule in rules}) == len(rules)
    for rule in rules:
        assert re.fullmatch(r"HW\d{3}", rule.id) and re.fullmatch(r"[a-z0-9.-]+", rule.name)
        assert rule.about and rule.source, rule.id


def test_every_rule_leads_to_a_section_of_the_failure_modes() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/failure-modes.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {rule.section for rule in [*RULES.values(), *live_rules(), *SYMPTOMS]} <= anchors


def test_the_pages_commands_are_the_commands_options() -> None:
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.partition("## Rules")[0]))
    offered = subprocess.run([sys.executable, "-m", "health.doctor", "--help"], capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
    foreign = {"--graceful-timeout", "--previous"}
    assert options - foreign <= set(re.findall(r"--[a-z][a-z-]+", offered))


def action(tmp_path: Path, text: str, **inputs: str) -> tuple[int, str, str]:
    """Run the action's own script as a runner would: status, annotations, and what it gave out."""
    definition = yaml.safe_load((ROOT / "action.yml").read_text())
    step = next(step for step in definition["runs"]["steps"] if step.get("name") == "Doctor")
    (tmp_path / "manifest.yaml").write_text(text)
    defaults = {name: entry.get("default", "") for name, entry in definition["inputs"].items()}
    given = {**defaults, "files": "manifest.yaml", **inputs}
    values = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: str(given[found[1]]), value)
        for name, value in step["env"].items()
    }
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    output = tmp_path / "output"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={**os.environ, **values, "PATH": path, "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_OUTPUT": str(output)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, output.read_text()


def test_the_action_annotates_and_fails_on_what_breaks(tmp_path: Path) -> None:
    faulty = text_of(deployment(container(readinessProbe={"httpGet": {"path": "/sse", "port": "http"}})))
    status, annotations, given = action(tmp_path, faulty, sarif="findings.sarif")
    assert (status, given) == (1, "status=1\n")
    assert annotations.startswith("::error file=manifest.yaml,line=")
    assert '"version": "2.1.0"' in (tmp_path / "findings.sarif").read_text()


def test_the_action_passes_a_clean_manifest_and_ignores_a_folder_named_health(tmp_path: Path) -> None:
    (tmp_path / "health").mkdir()
    (tmp_path / "health/__init__.py").write_text("raise SystemExit(7)\n")
    assert action(tmp_path, text_of(deployment()), **{"stream-path": "/events"}) == (0, "\n", "status=0\n")


def test_the_actions_packages_are_the_pinned_ones(tmp_path: Path) -> None:
    definition = yaml.safe_load((ROOT / "action.yml").read_text())
    run = next(step for step in definition["runs"]["steps"] if step.get("name") == "Packages")["run"]
    script = run.partition("\n")[0]
    env = {**os.environ, "GITHUB_ACTION_PATH": str(ROOT), "RUNNER_TEMP": str(tmp_path)}
    subprocess.run(["bash", "-ec", script], env=env, check=True, timeout=60)
    chosen = (tmp_path / "doctor-requirements.txt").read_text()
    assert re.findall(r"^([\w.]+)==", chosen, re.MULTILINE) == ["ruamel.yaml", "ruamel.yaml.clib"]
    for line in chosen.splitlines():
        assert line in (ROOT / "requirements.txt").read_text()
