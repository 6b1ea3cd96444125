"""HW60x: Services and policies that leave streams nowhere to go."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import BREAKS, RISKS, Change, Found, rule
from ..model import Model
from ..place import Object, Place
from ..workloads import Workload


@rule("HW601", "service-port-that-no-container-has", BREAKS, 11)
def service_port(model: Model) -> Iterator[Found]:
    """A Service's targetPort is a name that no container of its pods has.

    Source: Kubernetes API, ServicePort v1 core, targetPort: "If this is a string, it will be looked up as a named port
    in the target Pod's container ports."
    """
    for service in model.services:
        workloads = model.selected(service)
        if not workloads:
            continue
        names = {name for workload in workloads for container in workload.containers for name in container.ports}
        for port in service.at("spec", "ports").items():
            target = port.get("targetPort").text or ""
            if target and not target.isdigit() and target not in names:
                yield Found(
                    port.get("targetPort"),
                    f"no container of {workloads[0].object.id} has a port called {target} (there is:"
                    f" {', '.join(sorted(names)) or 'none'}): the Service has no endpoint for it",
                )


@rule("HW602", "session-affinity", RISKS, 13)
def session_affinity(model: Model) -> Iterator[Found]:
    """ClientIP affinity keeps everybody behind one address on one pod.

    Source: Kubernetes, "Virtual IPs and Service Proxies", "Session affinity": by the client's IP address, for 10800 s.
    """
    for service in model.services:
        place = service.at("spec", "sessionAffinity")
        if place.text != "ClientIP" or not any(workload in model.streaming for workload in model.selected(service)):
            continue
        replicas = max(workload.replicas for workload in model.selected(service))
        if replicas < 2:
            continue
        limit = service.at("spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds").integer(10800)
        yield Found(
            place,
            f"everybody behind one address (a proxy, an office) stays on one of {replicas} pods for {limit} s: after"
            " each rollout all of them reconnect to the pod that was first, and the others stay empty",
            (Change(place, "None", "Any pod can go on with any client."),)
            if not _keeps_sessions(model, model.selected(service))
            else (),
            advice=""
            if not _keeps_sessions(model, model.selected(service))
            else "Keep it only as long as sessions live in one process.",
        )


def _keeps_sessions(model: Model, workloads: list[Workload]) -> bool:
    return any(
        model.server(container).get("transport") == "sse" or "sse" == container.env.get("MCP_TRANSPORT")
        for workload in workloads
        for container in workload.containers
    )


@rule("HW603", "policy-without-a-way-in", BREAKS, 11)
def policy_without_a_way_in(model: Model) -> Iterator[Found]:
    """NetworkPolicies select the pods, and none lets anybody reach the Service's port.

    Source: Kubernetes, "Network Policies": what is allowed is the union of all policies that select a pod; traffic from
    the pod's own node is always allowed.
    """
    policies = [each for each in model.kind("NetworkPolicy") if _ingress(each)]
    for workload in model.streaming if policies else ():
        services = model.services_of(workload)
        chosen = [each for each in policies if services and _selects(each, workload)]
        if not chosen or not services:
            continue
        rules = [entry for each in chosen for entry in each.at("spec", "ingress").items()]
        for service in services:
            for port in service.at("spec", "ports").items():
                target = port.get("targetPort").text or port.get("port").text or ""
                if any(_allows(entry, target, workload) for entry in rules):
                    break
            else:
                names = ", ".join(each.name for each in chosen)
                yield Found(
                    chosen[0].at("spec", "ingress"),
                    f"of the policies that select {workload.object.id} ({names}) none lets anybody reach a port of"
                    f" Service/{service.name}: every client is dropped",
                )
                break


def _ingress(policy: Object) -> bool:
    types = [item.text for item in policy.at("spec", "policyTypes").items()]
    return not types or "Ingress" in types


def _selects(policy: Object, workload: Workload) -> bool:
    if policy.namespace != workload.object.namespace or policy.at("spec", "podSelector", "matchExpressions"):
        return False
    labels = {key: place.text for key, place in policy.at("spec", "podSelector", "matchLabels").entries()}
    return labels.items() <= workload.labels.items()


def _allows(entry: Place, target: str, workload: Workload) -> bool:
    ports = list(entry.get("ports").items())
    if not ports:
        return True
    numbers = {number for container in workload.containers if (number := container.port_number(target)) is not None}
    for port in ports:
        text = port.get("port").text
        if text is None or text == target:
            return True
        allowed = {number for container in workload.containers if (number := container.port_number(text)) is not None}
        end = port.get("endPort").number
        if allowed & numbers or (
            end is not None and any(low <= number <= end for low in allowed for number in numbers)
        ):
            return True
    return not numbers and not target.isdigit()
