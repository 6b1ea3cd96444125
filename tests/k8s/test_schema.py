"""Every document against the API server's schema, of the oldest and the newest supported Kubernetes."""

from __future__ import annotations

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from tests.k8s.manifests import Document, built, plain, title, variants

#: The fields that the manifests use are there, and on by default, from 1.27 on: matchLabelKeys in topology spread
#: constraints, unhealthyPodEvictionPolicy. The newest is what the schema package has.
OLDEST, NEWEST = "1.27", "1.37"
versions = pytest.mark.parametrize("version", [OLDEST, NEWEST])

#: Kinds of custom resources: no package has their schemas, so they are NOT checked here, except that kustomize can build
#: them. Any other kind must be one of Kubernetes' own.
UNCHECKED = {
    ("argoproj.io/v1alpha1", "ApplicationSet"),
    ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("networking.istio.io/v1", "VirtualService"),
}


def _check(document: Document, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@versions
@pytest.mark.parametrize("document", [pytest.param(one, id=title(one)) for one in plain()])
def test_the_api_server_accepts_each_plain_document(document: Document, version: str) -> None:
    _check(document, version)


@versions
@pytest.mark.parametrize("variant", variants())
def test_the_api_server_accepts_each_document_of_a_variant(variant: str, version: str) -> None:
    for document in built(variant):
        if (document["apiVersion"], document["kind"]) not in UNCHECKED:
            _check(document, version)


def test_the_list_of_unchecked_kinds_has_no_leftovers() -> None:
    used = {(one["apiVersion"], one["kind"]) for variant in variants() for one in built(variant)}
    assert used >= UNCHECKED


def test_the_plain_files_need_no_custom_resources() -> None:
    assert not {(one["apiVersion"], one["kind"]) for one in plain()} & UNCHECKED


def test_newest_is_the_newest_that_the_package_knows() -> None:
    assert kubernetes_validate.latest_version().startswith(f"{NEWEST}.")


def test_a_misspelt_field_is_refused() -> None:
    broken = {**plain()[0], "automountServiceAcountToken": False}
    with pytest.raises(kubernetes_validate.ValidationError):
        _check(broken, NEWEST)
