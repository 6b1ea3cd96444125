"""docs/kubernetes.md against the manifests."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.k8s.manifests import K8S, Document, find, plain, variants
from tests.k8s.test_schema import NEWEST, OLDEST
from tests.support.server import ROOT

TEXT = (ROOT / "docs" / "kubernetes.md").read_text()
ROWS = re.findall(r"^\| (\w+)/([\w-]+) \| `([^`]+)` \| `([^`]+)` \| (.+) \|$", TEXT, re.MULTILINE)


def _at(document: Document, path: str) -> Any:
    """`…` stands for spec.template.spec, `c` for its first container."""
    path = re.sub(r"^…\.", "spec.template.spec.", path)
    path = re.sub(r"^c\.", "spec.template.spec.containers.0.", path)
    place: Any = document
    for step in path.split("."):
        place = place[int(step)] if isinstance(place, list) else place[step]
    return place


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "why"), [pytest.param(*row, id=f"{row[0]}: {row[2]}") for row in ROWS]
)
def test_a_number_in_the_table_is_the_manifests(kind: str, name: str, path: str, value: str, why: str) -> None:
    assert str(_at(find(plain(), kind, name), path)) == value
    assert len(why) > 5


def _numbers(place: Any, path: str = "") -> dict[str, str]:
    """All numbers and quantities of a document, by their paths."""
    if isinstance(place, dict):
        found = [_numbers(value, f"{path}.{key}".lstrip(".")) for key, value in place.items()]
    elif isinstance(place, list):
        found = [_numbers(value, f"{path}.{index}") for index, value in enumerate(place)]
    else:
        is_number = type(place) is int or re.fullmatch(r"\d+(m|[KMG]i)", str(place))
        return {path: str(place)} if is_number else {}
    return {name: value for part in found for name, value in part.items()}


def test_no_number_of_the_deployment_is_missing_in_the_table() -> None:
    deployment = find(plain(), "Deployment", "headwater")
    listed = {
        re.sub(r"^c\.", "spec.template.spec.containers.0.", re.sub(r"^…\.", "spec.template.spec.", path))
        for kind, name, path, _, _ in ROWS
        if (kind, name) == ("Deployment", "headwater")
    }
    assert set(_numbers(deployment)) == listed


def test_every_file_and_variant_is_named() -> None:
    assert [path.name for path in sorted(K8S.glob("*.yaml")) if f"`{path.name}`" not in TEXT] == []
    assert [name for name in variants() if name != "base" and f"`{name}`" not in TEXT] == []


def test_the_supported_versions_are_those_that_are_checked() -> None:
    assert f"Kubernetes {OLDEST} to {NEWEST}" in TEXT


def test_the_quick_start_is_five_commands_and_builds_the_image_that_is_deployed() -> None:
    commands = re.findall(r"^    (\S.*)$", TEXT.split("In another terminal")[0], re.MULTILINE)
    assert len(commands) == 5
    image = find(plain(), "Deployment", "headwater")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert f"docker build -t {image} ." in commands and f"kind load docker-image {image}" in commands


def test_every_setting_that_is_named_exists() -> None:
    from sse.settings import Settings

    names = set(re.findall(r"\b(?:SSE|HEALTH)_[A-Z_]+[A-Z]\b", TEXT))
    assert names - {name.upper() for name in Settings.model_fields} == set()
