"""Nothing is found in what we ship: ``k8s/``, and every variant as kustomize renders it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from health.doctor.load import load
from tests.doctor.manifests import seen
from tests.k8s.manifests import built

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = sorted(path.parent for path in (ROOT / "k8s/variants").glob("*/kustomization.yaml"))
PLAIN = "\n".join(path.read_text() for path in sorted((ROOT / "k8s").glob("*.yaml")))


@pytest.mark.parametrize("stream_path", [None, "/events"])
def test_nothing_is_found_in_the_plain_manifests(stream_path: str | None) -> None:
    assert seen(PLAIN, stream_path) == []


def test_nothing_is_found_in_one_file_alone() -> None:
    for path in sorted((ROOT / "k8s").glob("*.yaml")):
        assert seen(path.read_text()) == [], path.name


@pytest.mark.parametrize("stream_path", [None, "/events"])
@pytest.mark.parametrize("folder", VARIANTS, ids=lambda folder: str(folder.name))
def test_nothing_is_found_in_any_variant(folder: Path, stream_path: str | None) -> None:
    kustomization = (folder / "kustomization.yaml").read_text()
    if "patches:" in kustomization or "../base" in kustomization:
        text = yaml.safe_dump_all(built(folder.name), sort_keys=False)
    else:
        # Only what is added to k8s/.
        objects = [path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml"]
        text = "\n".join([PLAIN, *("---\n" + path.read_text() for path in objects)])
    assert seen(text, stream_path) == []


def test_the_folder_is_read_as_kubectl_would() -> None:
    assert {each.file for each in load([str(ROOT / "k8s")]).objects} == {str(path) for path in (ROOT / "k8s").glob("*.yaml")}
