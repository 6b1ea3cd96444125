"""The version has one home, sse/version.py. Files that must write it out have the same one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from sse.version import VERSION
from tests.support.server import ROOT

#: An image's tag, a chart's version, a git tag; not the version of somebody else's.
WRITTEN = re.compile(r'(?:headwater:|headwater@v|newTag: |targetRevision: v|^version: |^appVersion: "|^ARG VERSION=)(\d+\.\d+\.\d+)', re.MULTILINE)


def _files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    places = ("k8s/", "deploy/", "docs/", "Dockerfile", "compose.yaml", "README.md", "action.yml")
    return [ROOT / name for name in listed if name.startswith(places) and not name.endswith((".png", ".svg"))]


def test_every_file_that_writes_the_version_out_has_this_one() -> None:
    found = {f"{path.relative_to(ROOT)}": WRITTEN.findall(path.read_text()) for path in _files() if path.is_file()}
    written = {name: set(versions) for name, versions in found.items() if versions}
    assert {"Dockerfile", "compose.yaml", "k8s/50-deployment.yaml", "deploy/helm/headwater/Chart.yaml"} <= written.keys()
    assert {name: versions for name, versions in written.items() if versions != {VERSION}} == {}


def test_security_md_says_which_versions_are_kept_up() -> None:
    major, minor, _ = VERSION.split(".")
    rows = re.findall(r"^\| (\S+) \| (\w+)", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert (f"{major}.{minor}", "yes") in rows


@pytest.mark.parametrize("text", ["image: headwater:9.9.9", 'appVersion: "9.9.9"', "ARG VERSION=9.9.9"])
def test_another_version_is_found(text: str) -> None:
    assert WRITTEN.findall(text) == ["9.9.9"]
