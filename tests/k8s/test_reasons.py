"""Every number in the plain files has its reason on the line above."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.manifests import K8S

#: `replicas: 2`, `- maxSkew: 1`, `memory: 128Mi`, `SSE_HEARTBEAT: "15"`; not 0.1.0, which is a version.
NUMBER = re.compile(r'^\s*(?:- )?([\w-]+): "?(-?\d+(?:\.\d+)?(?:m|k|[MG]|[KMG]i)?)"?$')

# A NetworkPolicy's ports are below the sentence that opens them.
FILES = [path for path in sorted(K8S.glob("*.yaml")) if "networkpolicy" not in path.name]


def without_a_reason(text: str) -> Iterator[str]:
    """Yield the lines with a number and no comment above. An item's name (`- name: http`) may be between the two."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if NUMBER.match(line):
            above = index - 1
            if re.match(r"^\s*- name: \S+$", lines[above]):
                above -= 1
            if not lines[above].lstrip().startswith("# "):
                yield f"{index + 1}: {line.strip()}"


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in FILES])
def test_each_number_has_a_comment_above(path: Path) -> None:
    assert list(without_a_reason(path.read_text())) == []


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in FILES])
def test_no_long_comment_is_used_twice(path: Path) -> None:
    """A copied reason is none."""
    comments = [line.strip() for line in path.read_text().splitlines() if line.lstrip().startswith("# ")]
    long = [line for line in comments if len(line) > 60]
    assert len(long) == len(set(long))


def test_a_number_without_a_comment_is_found() -> None:
    assert list(without_a_reason("spec:\n  # Two.\n  replicas: 2\n  other: 3")) == ["4: other: 3"]
