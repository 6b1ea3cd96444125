"""`kubectl diff` is empty after an apply: the files contain nothing that the API server would write differently.

The API server decodes objects into its own types and stores those. It drops an empty list or a null, and writes a
quantity in its canonical form. Applying such a value again changes the object each time: a NetworkPolicy with
``egress: []`` gets a new `metadata.generation`, which the diff shows for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.k8s.manifests import Document, built, plain, title, variants
from tests.k8s.policy import canonical
from tests.k8s.test_schema import UNCHECKED

#: Empty objects with a meaning, which are stored: a selector that matches every pod.
MEANT_EMPTY = frozenset({"podSelector", "namespaceSelector"})
#: Members whose value is a quantity; under the last two every member is one.
QUANTITIES = frozenset({"sizeLimit", "averageValue"})
RESOURCES = frozenset({"requests", "limits"})


def rewritten(place: Any, path: str = "", member: str = "", quantity: bool = False) -> Iterator[str]:
    """Yield the places of a document that the API server would drop or write differently."""
    if place is None or place in ([], ""):
        yield f"{path}: {place!r} is dropped"
    elif isinstance(place, dict):
        if not place and member not in MEANT_EMPTY:
            yield f"{path}: an empty object is dropped"
        for name, value in place.items():
            yield from rewritten(value, f"{path}.{name}", name, name in QUANTITIES or member in RESOURCES)
    elif isinstance(place, list):
        for index, value in enumerate(place):
            yield from rewritten(value, f"{path}.{index}")
    elif quantity and str(place) != canonical(str(place)):
        yield f"{path}: {place} is written {canonical(str(place))}"


def _complaints(documents: list[Document] | tuple[Document, ...]) -> list[str]:
    # A custom resource is stored as sent: no type drops anything.
    ours = [one for one in documents if (one["apiVersion"], one["kind"]) not in UNCHECKED]
    return [f"{title(one)}{complaint}" for one in ours for complaint in rewritten(one)]


def test_the_plain_files_are_stored_unchanged() -> None:
    assert _complaints(plain()) == []


@pytest.mark.parametrize("variant", variants())
def test_a_built_variant_is_stored_unchanged(variant: str) -> None:
    assert _complaints(built(variant)) == []


@pytest.mark.parametrize(
    "place",
    [
        pytest.param({"spec": {"egress": []}}, id="an empty list"),
        pytest.param({"strategy": {"rollingUpdate": None}}, id="a null"),
        pytest.param({"metadata": {"annotations": {}}}, id="an empty object"),
        pytest.param({"spec": {"externalName": ""}}, id="an empty text"),
        pytest.param({"resources": {"requests": {"cpu": "1000m"}}}, id="a whole number of cores in thousandths"),
        pytest.param({"resources": {"requests": {"cpu": "0.5"}}}, id="a fraction of a core"),
        pytest.param({"resources": {"limits": {"memory": "1024Mi"}}}, id="1024 of a unit"),
        pytest.param({"target": {"averageValue": "5000"}}, id="thousands"),
        pytest.param({"emptyDir": {"sizeLimit": "32.0Mi"}}, id="a decimal point"),
    ],
)
def test_a_value_that_would_be_rewritten_is_found(place: Document) -> None:
    assert len(list(rewritten(place))) == 1


@pytest.mark.parametrize("text", ["1", "250m", "5k", "1500", "128Mi", "1536Mi", "2Gi", "0"])
def test_a_canonical_quantity_stays(text: str) -> None:
    assert canonical(text) == text
