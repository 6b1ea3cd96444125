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
    """Return all numbers and quantities of a document, by path."""
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


QUICK_START = TEXT.partition("## From nothing to streaming")[2].partition("\n## ")[0].partition("\n| file ")[0]
COMMANDS = re.findall(r"^    (\S.*)$", QUICK_START, re.MULTILINE)


def test_the_quick_start_builds_the_image_that_is_deployed() -> None:
    image = find(plain(), "Deployment", "headwater")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert COMMANDS.index(f"docker build -t {image} .") < COMMANDS.index(f"kind load docker-image {image}")


def test_the_quick_start_can_be_followed_from_top_to_bottom() -> None:
    """A pod reads its Secret when it starts, so the Secret is first. A port-forward ends with its pod, so after a restart
    there is a new one before anything is sent through it."""
    secret = next(index for index, one in enumerate(COMMANDS) if one.startswith("kubectl create secret"))
    apply = next(index for index, one in enumerate(COMMANDS) if one.startswith("kubectl apply"))
    assert secret < apply
    forwarded = False
    for command in COMMANDS:
        if command.startswith("kubectl port-forward"):
            forwarded = True
        elif "rollout restart" in command:
            forwarded = False
        elif "localhost:8080" in command:
            assert forwarded, command
    assert forwarded, "the old port-forward leads nowhere"


def test_every_variable_of_the_quick_start_is_set_before_it_is_used() -> None:
    known: set[str] = set()
    for command in COMMANDS:
        assert set(re.findall(r"\$([A-Z]+)", command)) <= known, command
        known |= set(re.findall(r"^([A-Z]+)=", command))


def test_a_drain_that_shows_as_a_failed_probe_is_explained() -> None:
    event = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    assert event in QUICK_START and event in TEXT.partition("by symptom")[2]


def test_every_setting_that_is_named_exists() -> None:
    from sse.settings import Settings

    names = set(re.findall(r"\b(?:SSE|HEALTH)_[A-Z_]+[A-Z]\b", TEXT))
    assert names - {name.upper() for name in Settings.model_fields} == set()
