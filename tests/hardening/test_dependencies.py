"""Every package that gets installed is pinned, with the hashes of its files."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return the requirements of a file and of those that it includes, with their hashes."""
    found = []
    for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found += entries(line.removeprefix("-r ").strip())
        elif line:
            requirement, *hashes = line.split(" --hash=")
            found.append((Requirement(requirement), [text.strip() for text in hashes]))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned_once_with_its_hashes(name: str) -> None:
    seen = set()
    for requirement, hashes in entries(name):
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None, requirement
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), requirement
        assert (key := (canonicalize_name(requirement.name), str(requirement.marker))) not in seen, requirement
        seen.add(key)


def test_each_dependency_has_an_upper_bound_and_the_installed_version_is_below_it() -> None:
    ranges = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    capped = {"flask", "werkzeug", "gunicorn", "gevent", "redis", "hiredis", "throttled-py"}
    for requirement in map(Requirement, ranges):
        installed = distribution(requirement.name).version
        assert requirement.specifier.contains(installed, prereleases=True), f"{requirement}: {installed}"
        if requirement.name in capped:
            capped.remove(requirement.name)
            assert any(bound.operator == "<" for bound in requirement.specifier), f"{requirement} has no upper bound"
    assert not capped


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-otel.txt", "requirements-dev.txt"])
def test_all_transitive_requirements_are_pinned_and_compatible(name: str) -> None:
    pinned = {
        canonicalize_name(requirement.name): requirement
        for requirement, _ in entries(name)
        if requirement.marker is None or requirement.marker.evaluate()
    }
    for requirement in pinned.values():
        installed = distribution(requirement.name)
        assert requirement.specifier.contains(installed.version, prereleases=True), f"{requirement}: {installed.version}"
        for extra in ("", *requirement.extras):
            for text in installed.requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    assert canonicalize_name(needed.name) in pinned, f"{requirement.name} needs {needed}"
                    there = distribution(needed.name).version
                    assert needed.specifier.contains(there, prereleases=True), f"{requirement.name} needs {needed}, not {there}"
