"""The manifests: the plain files of k8s/, and the variants as `kubectl kustomize` builds them."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.k8s.kubectl import kubectl
from tests.support.kubelet import load_documents
from tests.support.kubelet.manifest import load_all
from tests.support.server import ROOT

K8S = ROOT / "k8s"
VARIANTS = K8S / "variants"

Document = dict[str, Any]

#: Kinds of the plain files that run pods.
WORKLOADS = ("Deployment", "StatefulSet")


def plain() -> list[Document]:
    """Load what ``kubectl apply -f k8s/`` applies: the files of that folder, in order."""
    return load_documents(K8S)


def variants() -> list[str]:
    """Return the names of all variants; ``base`` is their common part."""
    return sorted(path.parent.name for path in VARIANTS.glob("*/kustomization.yaml"))


@functools.cache
def built(variant: str) -> tuple[Document, ...]:
    """Return a variant's documents, as kustomize builds them."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(VARIANTS / variant)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"kubectl kustomize {variant}: {done.stderr[-2000:]}"
    return tuple(load_all(done.stdout))


def find(documents: list[Document] | tuple[Document, ...], kind: str, name: str) -> Document:
    """Return the one document of this kind and name."""
    found = [one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)} of them"
    return found[0]


def title(document: Document) -> str:
    """Return ``Kind/name``, for the names of test cases."""
    return f"{document['kind']}/{document['metadata']['name']}"


def pod_spec(workload: Document) -> Document:
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Document) -> Iterator[Document]:
    spec = pod_spec(workload)
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def texts(folder: Path = K8S) -> list[Path]:
    """Return all YAML files below a folder."""
    return sorted(folder.rglob("*.yaml"))
