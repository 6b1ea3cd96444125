"""The rules of policy.py hold for the plain files and every variant with workloads; and each rule finds a workload that
breaks it, because a rule that never complains checks nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.k8s.manifests import WORKLOADS, Document, built, find, plain, pod_spec, title, variants
from tests.k8s.policy import RULES, Rule, budget

rules = pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.name) for rule in RULES])


@rules
@pytest.mark.parametrize("workload", [pytest.param(one, id=title(one)) for one in plain() if one["kind"] in WORKLOADS])
def test_it_holds_for_the_plain_files(rule: Rule, workload: Document) -> None:
    assert list(rule.check(workload, plain())) == []


@pytest.mark.parametrize("variant", variants())
def test_all_rules_hold_for_the_variants(variant: str) -> None:
    documents = built(variant)
    complaints = [
        (title(one), rule.name, complaint)
        for one in documents
        if one["kind"] in WORKLOADS
        for rule in RULES
        for complaint in rule.check(one, documents)
    ]
    assert complaints == []


Break = Callable[[Document, list[Document]], Any]


def _set(path: str, value: Any) -> Break:
    def change(workload: Document, documents: list[Document]) -> None:
        place: Any = workload
        steps = (step.replace("~", "/") for step in path.split("/"))
        *way, last = (int(step) if step.isdecimal() else step for step in steps)
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


POD = "spec/template/spec"
FIRST = f"{POD}/containers/0"
BROKEN: dict[str, Break] = {
    "it does not run as root": _set(f"{POD}/securityContext/runAsUser", 0),
    "it has the default seccomp profile": _set(f"{POD}/securityContext/seccompProfile/type", "Unconfined"),
    "it has no capability, and gets none": _set(f"{FIRST}/securityContext/capabilities/add", ["NET_ADMIN"]),
    "its root file system is read-only": _set(f"{FIRST}/securityContext/readOnlyRootFilesystem", False),
    "it has nothing of its node": _set(f"{POD}/hostNetwork", True),
    "it has no token for the API server": _set(f"{POD}/automountServiceAccountToken", None),
    "it has no variables made from Services": _set(f"{POD}/enableServiceLinks", None),
    "its images have versions": _set(f"{FIRST}/image", "registry:5000/headwater"),
    "it requests CPU and memory, and only memory is limited": _set(f"{FIRST}/resources/limits/cpu", "1"),
    "its probes leave each other time": _set(f"{FIRST}/livenessProbe/failureThreshold", 1),
    "its probes ask different questions": _set(f"{FIRST}/livenessProbe/httpGet/path", "/readyz"),
    "selectors match": _set("spec/template/metadata/labels/app.kubernetes.io~component", "web"),
    "Services lead to its ports": _set(f"{FIRST}/ports/0/name", "web"),
    "it carries the recommended labels": _set("metadata/labels/app.kubernetes.io~part-of", None),
    "a rollout never leaves fewer pods": _set("spec/strategy/rollingUpdate/maxUnavailable", 1),
    "it can be evicted, but not as a whole": lambda workload, documents: find(
        documents, "PodDisruptionBudget", "headwater"
    )["spec"].update(maxUnavailable=0),
    "its pods are kept apart, also where nodes have no zone": lambda workload, documents: pod_spec(workload)[
        "topologySpreadConstraints"
    ].append({"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}),
    "its volumes are mounted and bounded": _set(f"{POD}/volumes/0/emptyDir/sizeLimit", None),
    "NetworkPolicies govern both directions": lambda workload, documents: documents.remove(
        find(documents, "NetworkPolicy", "headwater")
    ),
}


@pytest.fixture
def documents() -> Iterator[list[Document]]:
    yield copy.deepcopy(plain())


@rules
def test_a_workload_that_breaks_the_rule_is_found(rule: Rule, documents: list[Document]) -> None:
    workload = find(documents, "Deployment", "headwater")
    assert list(rule.check(workload, documents)) == []
    BROKEN[rule.name](workload, documents)
    assert list(rule.check(workload, documents)) != []


def test_a_missing_or_wrong_zone_preference_is_found(documents: list[Document]) -> None:
    by_name = {rule.name: rule for rule in RULES}
    workload = find(documents, "Deployment", "headwater")
    (wish,) = pod_spec(workload)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    wish["podAffinityTerm"]["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] = "redis"
    assert list(by_name["selectors match"].check(workload, documents)) != []
    del pod_spec(workload)["affinity"]
    assert list(by_name["its pods are kept apart, also where nodes have no zone"].check(workload, documents)) != []


def test_the_probe_budgets_of_the_deployment_are_what_its_comments_say() -> None:
    container = pod_spec(find(plain(), "Deployment", "headwater"))["containers"][0]
    assert {name: budget(container[f"{name}Probe"]) for name in ("startup", "liveness", "readiness")} == {
        "startup": 300,
        "liveness": 60,
        "readiness": 10,
    }
