"""HW42x: cloud load balancers: AWS' ALB, Google's, and what is set on a Service."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import BREAKS, RISKS, Change, Found, Severity, rule
from ..model import Model
from ..place import Object, Place
from ..units import say
from .ingress import Idle, controller, idle_found
from .probes import aims_at_stream

_ALB = Idle("the ALB", "", 60, "")


@rule("HW421", "alb-ends-quiet-streams", BREAKS, 11)
def alb_idle(model: Model) -> Iterator[Found]:
    """The ALB closes a connection over which nothing was sent for some seconds.

    Source: AWS, "Application Load Balancers", "Load balancer attributes", idle_timeout.timeout_seconds: "The idle
    timeout value, in seconds. The default is 60 seconds."; AWS Load Balancer Controller, "Ingress annotations".
    """
    for ingress in model.carriers("Ingress"):
        if controller(ingress) != "alb":
            continue
        place = ingress.annotation("alb.ingress.kubernetes.io/load-balancer-attributes")
        found = re.search(r"idle_timeout\.timeout_seconds=(\d+)", place.text or "")
        limit = float(found[1]) if found else 60.0
        for each in idle_found(place, limit, not found, model.heartbeat(ingress), _ALB):
            change = each.changes[0]
            wanted = f"idle_timeout.timeout_seconds={change.value}"
            others = [part for part in (place.text or "").split(",") if part and "idle_timeout." not in part]
            changes = (Change(place, ",".join([*others, wanted]), change.why),)
            yield Found(each.place, each.reason, changes, each.severity)


@rule("HW422", "google-ends-answers", BREAKS, 11)
def google_ends_answers(model: Model) -> Iterator[Found]:
    """Google's load balancer ends every answer after the backend's time-out, 30 s by default.

    Source: Google Cloud, "Backend services overview", "Backend service timeout": for HTTP it lasts to the last byte of
    the answer, default 30 s; GKE, "Ingress configuration", BackendConfig timeoutSec; "Configure Gateway resources",
    GCPBackendPolicy timeoutSec.
    """
    seen: set[tuple[int, str]] = set()
    for route in model.routes:
        if not route.carries or route.object.kind != "Ingress" or controller(route.object) != "gce":
            continue
        for name in route.services:
            service = model.service(name, route.object.namespace)
            if service is None or (id(service), "") in seen:
                continue
            seen.add((id(service), ""))
            yield from _backend_config(model, service)
    for policy in model.kind("GCPBackendPolicy"):
        place = policy.at("spec", "default", "timeoutSec")
        target = policy.at("spec", "targetRef", "name").text
        if not any(target in route.services for route in model.routes if route.carries) and model.routes:
            continue
        yield from _whole_answer(place)
    yield from _unpolicied(model)


def _unpolicied(model: Model) -> Iterator[Found]:
    """HTTPRoutes on one of Google's Gateways without a policy for their Service."""
    gateways = {
        each.name
        for each in model.kind("Gateway")
        if (each.at("spec", "gatewayClassName").text or "").startswith("gke-")
    }
    targets = {each.at("spec", "targetRef", "name").text for each in model.kind("GCPBackendPolicy")}
    for route in model.routes:
        parents = {parent.get("name").text for parent in route.object.at("spec", "parentRefs").items()}
        if not route.carries or route.object.kind != "HTTPRoute" or not parents & gateways:
            continue
        for number, name in enumerate(route.services):
            if name not in targets:
                yield Found(
                    route.place.get("backendRefs", number),
                    f"no GCPBackendPolicy for Service/{name}: Google's load balancer ends every answer after 30 s,"
                    " heartbeats or not",
                    advice="A GCPBackendPolicy with spec.default.timeoutSec: 86400 and this Service as its targetRef.",
                )


def _backend_config(model: Model, service: Object) -> Iterator[Found]:
    annotation = service.annotation("cloud.google.com/backend-config")
    if not annotation:
        older = service.annotation("beta.cloud.google.com/backend-config")
        annotation = older if older else annotation
    names = re.findall(r'"[^"]*"\s*:\s*"([^"]+)"', (annotation.text or "").partition("{")[2])
    names = [name for name in names if name != "ports"]
    if not annotation:
        yield Found(
            annotation,
            "no BackendConfig, so Google's load balancer ends every answer after 30 s, heartbeats or not",
            advice='A BackendConfig with spec.timeoutSec: 86400, named here as {"default": "…"}.',
        )
        return
    for config in model.kind("BackendConfig"):
        if config.name in names and config.namespace == service.namespace:
            yield from _whole_answer(config.at("spec", "timeoutSec"))


def _whole_answer(place: Place) -> Iterator[Found]:
    limit = place.number if place else 30.0
    if limit is None or limit >= 3600:
        return
    severity: Severity = BREAKS if limit < 600 else RISKS
    said = f"{limit:g}" if place else "not set, so 30"
    yield Found(
        place,
        f"{said}: Google's load balancer ends every answer after {say(limit)}, whatever is sent"
        " (ERR_HTTP2_PROTOCOL_ERROR in a browser): a heartbeat does not move a limit of the whole answer",
        (Change(place, 86400, "For the whole answer: a day, the most that is allowed."),),
        severity,
    )


@rule("HW423", "load-balancer-checks-a-stream", RISKS, 2)
def checks_a_stream(model: Model) -> Iterator[Found]:
    """A load balancer's own health check asks a path that never ends.

    Source: AWS Load Balancer Controller, "Health Check" annotations; Google Cloud, "Health checks overview": the answer
    must come within the time-out.
    """
    for ingress in model.carriers("Ingress"):
        yield from _check(model, ingress.annotation("alb.ingress.kubernetes.io/healthcheck-path"))
    for config in model.kind("BackendConfig"):
        yield from _check(model, config.at("spec", "healthCheck", "requestPath"))
    for policy in model.kind("HealthCheckPolicy"):
        yield from _check(model, policy.at("spec", "default", "config", "httpHealthCheck", "requestPath"))


def _check(model: Model, place: Place) -> Iterator[Found]:
    why = aims_at_stream(model, place.text or "") if place else ""
    if why:
        yield Found(
            place,
            f"{why}: each check of each load balancer node opens a stream, and waits for an end that never comes",
            advice="Aim at a route that ends.",
        )


@rule("HW424", "load-balancer-ends-quiet-connections", BREAKS, 11)
def elb_idle(model: Model) -> Iterator[Found]:
    """A Service of type LoadBalancer sets a short idle time-out.

    Source: Kubernetes, "Service", "Other ELB annotations": aws-load-balancer-connection-idle-timeout, "The time, in
    seconds, that the connection is allowed to be idle (no data has been sent over the connection) before it is closed".
    """
    for service in model.services:
        place = service.annotation("service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout")
        if (
            place
            and place.number is not None
            and any(workload in model.streaming for workload in model.selected(service))
        ):
            yield from idle_found(
                place, place.number, False, model.any_heartbeat(), Idle("the load balancer", "", 60, "")
            )
