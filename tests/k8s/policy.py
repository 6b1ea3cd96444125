"""Our rules for every workload, in the spirit of kube-score and the restricted Pod Security Standard, as a table of small
functions over one workload and its neighbours. A rule yields what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

from tests.k8s.manifests import Document, containers, pod_spec

Complaints = Iterator[str]


class Rule(NamedTuple):
    """name: a sentence that must be true; check: yields what contradicts it."""

    name: str
    check: Callable[[Document, Sequence[Document]], Complaints]


# Kubernetes documentation, "Pod Security Standards", profile "restricted".


def _not_root(workload: Document, _: Sequence[Document]) -> Complaints:
    context = pod_spec(workload).get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not set"
    for name in ("runAsUser", "runAsGroup"):
        if not context.get(name):
            yield f"{name} is missing, or root's"
    for container in containers(workload):
        if container.get("securityContext", {}).get("runAsUser") == 0:
            yield f"{container['name']} runs as root"


def _seccomp(workload: Document, _: Sequence[Document]) -> Complaints:
    profile = pod_spec(workload).get("securityContext", {}).get("seccompProfile", {})
    if profile.get("type") != "RuntimeDefault":
        yield f"seccompProfile is {profile}"


def _no_rights(workload: Document, _: Sequence[Document]) -> Complaints:
    for container in containers(workload):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']} may gain privileges"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']}: capabilities are {context.get('capabilities')}"
        if context.get("privileged"):
            yield f"{container['name']} is privileged"


def _read_only_root(workload: Document, _: Sequence[Document]) -> Complaints:
    for container in containers(workload):
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} can write to its root file system"


def _no_host(workload: Document, _: Sequence[Document]) -> Complaints:
    spec = pod_spec(workload)
    yield from (f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is the node's"
    for container in containers(workload):
        yield from (f"hostPort {port}" for port in container.get("ports", []) if "hostPort" in port)


def _no_token(workload: Document, _: Sequence[Document]) -> Complaints:
    spec = pod_spec(workload)
    if spec.get("automountServiceAccountToken") is not False:
        yield "the service account's token is mounted"
    if spec.get("serviceAccountName", "default") == "default":
        yield "it runs as the namespace's default service account"


def _no_service_links(workload: Document, _: Sequence[Document]) -> Complaints:
    if pod_spec(workload).get("enableServiceLinks") is not False:
        yield "Services add variables such as HEALTH_PORT"


def _pinned(workload: Document, _: Sequence[Document]) -> Complaints:
    for container in containers(workload):
        _, colon, tag = container["image"].rpartition(":")
        if not colon or "/" in tag or tag == "latest":
            yield f"{container['image']} has no version"


def _resources(workload: Document, _: Sequence[Document]) -> Complaints:
    for container in containers(workload):
        requests = container.get("resources", {}).get("requests", {})
        limits = container.get("resources", {}).get("limits", {})
        yield from (f"{container['name']} requests no {name}" for name in ("cpu", "memory") if name not in requests)
        if "memory" not in limits:
            yield f"{container['name']} has no limit of memory: one leak takes the node"
        elif quantity(limits["memory"]) < quantity(requests.get("memory", "0")):
            yield f"{container['name']}: the limit of memory is below the request"
        if "cpu" in limits:
            yield f"{container['name']} has a limit of CPU: it is throttled, streams and probes alike"


def _probes(workload: Document, _: Sequence[Document]) -> Complaints:
    for container in containers(workload):
        kinds = ("startup", "liveness", "readiness")
        probes: dict[str, Document] = {name: container.get(f"{name}Probe", {}) for name in kinds}
        if missing := [name for name, probe in probes.items() if not probe]:
            yield f"{container['name']} has no probe for {', '.join(missing)}"
            continue
        for name, probe in probes.items():
            if not probe.get("timeoutSeconds", 1) < probe.get("periodSeconds", 10):
                yield f"{name}: timeoutSeconds is not below periodSeconds: probes pile up"
        patience = {name: budget(probe) for name, probe in probes.items()}
        if not patience["liveness"] > patience["readiness"]:
            yield "liveness is not more patient than readiness: pods are restarted before they are left out"
        if not patience["startup"] >= patience["liveness"]:
            yield "a start has less time than a running process has to recover"


def _probes_differ(workload: Document, _: Sequence[Document]) -> Complaints:
    for container in containers(workload):
        asked = [container.get(f"{name}Probe", {}).get("httpGet") for name in ("startup", "liveness", "readiness")]
        over_http = [(ask["path"], ask["port"]) for ask in asked if ask]
        if len(set(over_http)) != len(over_http):
            yield f"{container['name']}: two probes ask the same question: {over_http}"


def _selectors(workload: Document, documents: Sequence[Document]) -> Complaints:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    if not _selects(workload["spec"]["selector"]["matchLabels"], labels):
        yield "its selector does not match its own pods"
    pods = [one for one in documents if one["kind"] in ("Deployment", "StatefulSet")]
    for document in documents:
        for selector in _pod_selectors(document):
            if not any(_selects(selector, pod["spec"]["template"]["metadata"]["labels"]) for pod in pods):
                yield f"{document['kind']} {document['metadata']['name']} selects nothing: {selector}"
    spread = pod_spec(workload).get("topologySpreadConstraints", [])
    anti = pod_spec(workload).get("affinity", {}).get("podAntiAffinity", {})
    wishes = [one["podAffinityTerm"] for one in anti.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
    for term in (*spread, *wishes):
        if not _selects(term["labelSelector"]["matchLabels"], labels):
            yield f"the spread over {term['topologyKey']} counts other pods"


def _services(workload: Document, documents: Sequence[Document]) -> Complaints:
    """Every Service port that leads to these pods has a container port of that name."""
    labels = workload["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for container in containers(workload) for port in container.get("ports", [])}
    for document in documents:
        if document["kind"] == "Service" and _selects(document["spec"]["selector"], labels):
            for port in document["spec"]["ports"]:
                if port["targetPort"] not in ports:
                    yield f"Service {document['metadata']['name']}: no container port {port['targetPort']}"


def _labels(workload: Document, _: Sequence[Document]) -> Complaints:
    wanted = [f"app.kubernetes.io/{name}" for name in ("name", "component", "part-of")]
    for labels in (workload["metadata"]["labels"], workload["spec"]["template"]["metadata"]["labels"]):
        yield from (f"label {name} is missing" for name in wanted if name not in labels)


def _no_downtime(workload: Document, _: Sequence[Document]) -> Complaints:
    if workload["kind"] != "Deployment":
        return
    strategy = workload["spec"]["strategy"]
    if workload["spec"].get("replicas") == 1:
        if strategy["type"] != "Recreate":
            yield "one pod with a file of its own: a rolling update would run two on it"
    elif strategy.get("rollingUpdate") != {"maxUnavailable": 0, "maxSurge": 1}:
        yield f"a rollout takes pods away before others are there: {strategy}"


def _disruption(workload: Document, documents: Sequence[Document]) -> Complaints:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    # Without a number there is an autoscaler, whose least number counts.
    replicas = workload["spec"].get("replicas") or min(
        (one["spec"]["minReplicas"] for one in documents if one["kind"] == "HorizontalPodAutoscaler"), default=1
    )
    budgets = [
        one["spec"]
        for one in documents
        if one["kind"] == "PodDisruptionBudget" and _selects(one["spec"]["selector"]["matchLabels"], labels)
    ]
    if workload["kind"] == "Deployment" and len(budgets) != 1:
        yield f"{len(budgets)} PodDisruptionBudgets"
    for spec in budgets:
        left = replicas - spec["maxUnavailable"] if "maxUnavailable" in spec else spec.get("minAvailable", 0)
        if left >= replicas:
            yield f"no pod may be evicted of {replicas}: nodes cannot be drained"
        if left < 1 and replicas > 1:
            yield "all pods may be evicted at once"


def _volumes(workload: Document, _: Sequence[Document]) -> Complaints:
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
    volumes = {volume["name"]: volume for volume in pod_spec(workload).get("volumes", [])}
    mounted = [mount["name"] for container in containers(workload) for mount in container.get("volumeMounts", [])]
    if sorted(mounted) != sorted([*volumes, *claims]):
        yield f"mounted are {mounted}, there are {[*volumes, *claims]}"
    for name, volume in volumes.items():
        if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
            yield f"volume {name} can grow without a limit"


def _isolated(workload: Document, documents: Sequence[Document]) -> Complaints:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    policies = [one["spec"] for one in documents if one["kind"] == "NetworkPolicy"]
    covered = {kind for spec in policies if _selects(spec["podSelector"].get("matchLabels", {}), labels)
               for kind in spec["policyTypes"]}
    if covered != {"Ingress", "Egress"}:
        yield f"NetworkPolicies govern {sorted(covered) or 'nothing'}"


def _apart(workload: Document, _: Sequence[Document]) -> Complaints:
    """The scheduler scores a node only if it has the label of *every* constraint that a pod names, and leaves out all
    others (PodTopologySpread, ScheduleAnyway). So a constraint with a label that nodes may lack undoes the rest."""
    if workload["kind"] != "Deployment":
        return
    spec = pod_spec(workload)
    constraints = spec.get("topologySpreadConstraints", [])
    keys = [constraint["topologyKey"] for constraint in constraints]
    if "kubernetes.io/hostname" not in keys:
        yield "pods are not spread over nodes"
    yield from (f"no spread where nodes lack {key}" for key in keys if key != "kubernetes.io/hostname")
    if any(constraint["whenUnsatisfiable"] != "ScheduleAnyway" for constraint in constraints):
        yield "pods wait for a second node"
    if any(constraint.get("matchLabelKeys") != ["pod-template-hash"] for constraint in constraints):
        yield "the old pods push the new ones of a rollout aside"
    anti = spec.get("affinity", {}).get("podAntiAffinity", {})
    if "requiredDuringSchedulingIgnoredDuringExecution" in anti:
        yield "pods wait for a second zone"
    wishes = [one["podAffinityTerm"] for one in anti.get("preferredDuringSchedulingIgnoredDuringExecution", [])]
    if "topology.kubernetes.io/zone" not in [term["topologyKey"] for term in wishes]:
        yield "pods are not kept in different zones"


RULES: Final = (
    Rule("it does not run as root", _not_root),
    Rule("it has the default seccomp profile", _seccomp),
    Rule("it has no capability, and gets none", _no_rights),
    Rule("its root file system is read-only", _read_only_root),
    Rule("it has nothing of its node", _no_host),
    Rule("it has no token for the API server", _no_token),
    Rule("it has no variables made from Services", _no_service_links),
    Rule("its images have versions", _pinned),
    Rule("it requests CPU and memory, and only memory is limited", _resources),
    Rule("its probes leave each other time", _probes),
    Rule("its probes ask different questions", _probes_differ),
    Rule("selectors match", _selectors),
    Rule("Services lead to its ports", _services),
    Rule("it carries the recommended labels", _labels),
    Rule("a rollout never leaves fewer pods", _no_downtime),
    Rule("it can be evicted, but not as a whole", _disruption),
    Rule("its pods are kept apart, also where nodes have no zone", _apart),
    Rule("its volumes are mounted and bounded", _volumes),
    Rule("NetworkPolicies govern both directions", _isolated),
)


def budget(probe: Document) -> int:
    """Return the seconds of failures until the kubelet acts."""
    return int(probe.get("failureThreshold", 3)) * int(probe.get("periodSeconds", 10))


def quantity(text: Any) -> float:
    """Read a Kubernetes quantity as a number: bytes, or cores."""
    found = re.fullmatch(r"([0-9.]+)(m|k|M|G|Ki|Mi|Gi)?", str(text))
    assert found is not None, text
    scale = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, None: 1}[found[2]]
    return float(found[1]) * scale


def canonical(text: str) -> str:
    """Write a quantity like the API server: no fraction, the largest suffix that leaves a whole number, of the same kind
    (a power of two stays one)."""
    value = Fraction(re.sub(r"[a-zA-Z]+$", "", text))
    suffix = text[len(text.rstrip("mkMGTi")) :]
    binary = {"Gi": 2**30, "Mi": 2**20, "Ki": 2**10, "": 1}
    decimal = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1, "m": Fraction(1, 1000)}
    value *= (binary if suffix in binary else decimal)[suffix]
    scales = binary if suffix.endswith("i") else decimal
    for name, scale in scales.items():
        if value and (value / scale).denominator == 1:
            return f"{value / scale}{name}"
    return "0"


def _selects(selector: Document, labels: Document) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


def _pod_selectors(document: Document) -> Iterator[Document]:
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        yield spec["selector"]
    elif document["kind"] == "PodDisruptionBudget":
        yield spec["selector"]["matchLabels"]
    elif document["kind"] == "NetworkPolicy":
        yield spec["podSelector"].get("matchLabels", {})
