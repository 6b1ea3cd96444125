"""HW43x: the Gateway API, Envoy Gateway and Traefik."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import BREAKS, RISKS, Change, Found, Severity, rule
from ..model import Model
from ..place import Object, Place
from ..units import FOREVER, say
from .ingress import Idle, idle_found


def whole_answer(place: Place, what: str, zero: str = "0s") -> Iterator[Found]:
    """A finite limit of a whole answer."""
    limit = place.seconds() if place else None
    if limit is None or limit in (0, FOREVER) or limit >= 3600:
        return
    severity: Severity = BREAKS if limit < 600 else RISKS
    yield Found(
        place,
        f"{what} {place.text} is for the whole answer: every stream ends {say(limit)} after it began, heartbeats or"
        " not",
        (Change(place, zero, "0: no limit. It is for the whole answer, and a stream's has no end."),),
        severity,
    )


@rule("HW431", "route-ends-answers", BREAKS, 11)
def route_ends_answers(model: Model) -> Iterator[Found]:
    """A route of the Gateway API limits the whole answer.

    Source: Gateway API, HTTPRouteTimeouts, request: "the maximum duration for a gateway to respond to an HTTP request",
    backendRequest likewise to the backend; the zero duration "SHOULD disable the timeout completely".
    """
    for route in model.routes:
        if not route.carries or route.object.kind not in ("HTTPRoute", "GRPCRoute") or model.beside_the_streams(route):
            continue
        for name in ("request", "backendRequest"):
            yield from whole_answer(route.place.get("timeouts", name), f"timeouts.{name}")


def _uses_envoy_gateway(model: Model) -> bool:
    return any(each.group == "gateway.envoyproxy.io" for each in model.objects) or any(
        "gateway.envoyproxy.io" in (each.at("spec", "controllerName").text or "") for each in model.kind("GatewayClass")
    )


@rule("HW432", "envoy-gateway-ends-answers", BREAKS, 11)
def envoy_gateway_default(model: Model) -> Iterator[Found]:
    """Envoy Gateway, and neither the route nor a policy lifts Envoy's limit of 15 s.

    Source: Envoy Gateway, "HTTP Timeouts": "The default request timeout is set to 15 seconds in Envoy Proxy"; "GRPC
    Timeouts": which "will terminate long-lived streaming RPCs".
    """
    if not _uses_envoy_gateway(model):
        return
    for route in model.routes:
        if not route.carries or route.object.kind not in ("HTTPRoute", "GRPCRoute"):
            continue
        request = route.place.get("timeouts", "request")
        if request or any(
            policy.at("spec", "timeout", "http", "requestTimeout") for policy in _policies(model, route.object)
        ):
            continue
        http = route.object.kind == "HTTPRoute"
        yield Found(
            request if http else route.place,
            "not set, and no BackendTrafficPolicy sets requestTimeout: Envoy's default ends every answer after 15 s,"
            " heartbeats or not",
            (Change(request, "0s", "0: no limit. Envoy's default for the whole answer is 15 s."),)
            if route.object.kind == "HTTPRoute"
            else (),
            advice=""
            if route.object.kind == "HTTPRoute"
            else "A BackendTrafficPolicy with timeout.http.requestTimeout: 0s.",
        )


def _policies(model: Model, route: Object) -> list[Object]:
    """BackendTrafficPolicies of a route or of its Gateway."""
    parents = {parent.get("name").text for parent in route.at("spec", "parentRefs").items()}
    found = []
    for policy in model.kind("BackendTrafficPolicy"):
        for reference in _targets(policy):
            kind, name = reference.get("kind").text, reference.get("name").text
            if (kind == route.kind and name == route.name) or (kind == "Gateway" and name in parents):
                found.append(policy)
    return found


def _targets(policy: Object) -> Iterator[Place]:
    if policy.at("spec", "targetRef"):
        yield policy.at("spec", "targetRef")
    yield from policy.at("spec", "targetRefs").items()


def _concerned(model: Model, policy: Object) -> bool:
    """True unless a policy names routes or Gateways, all of which are here and carry no stream."""
    targets = list(_targets(policy))
    carrying = [route.object for route in model.routes if route.carries]
    known = {route.object.name for route in model.routes}
    names = {each.name for each in carrying}
    parents = {parent.get("name").text for each in carrying for parent in each.at("spec", "parentRefs").items()}
    for target in targets:
        kind, name = target.get("kind").text, target.get("name").text
        if kind == "Gateway" and (not parents or name in parents):
            return True
        if kind in ("HTTPRoute", "GRPCRoute") and (name in names or name not in known):
            return True
        if kind == "Service":
            return True
    return not targets


@rule("HW433", "policy-ends-streams", BREAKS, 11)
def policy_ends_streams(model: Model) -> Iterator[Found]:
    """A policy of Envoy Gateway limits streams' age, silence or number.

    Source: Envoy Gateway API, HTTPTimeout: requestTimeout, "the time until which entire response is received from the
    upstream", maxStreamDuration, streamIdleTimeout; HTTPClientTimeout: streamIdleTimeout; ClientConnection:
    connectionLimit, maxConnectionDuration, maxStreamDuration; CircuitBreaker: maxParallelRequests.
    """
    for policy in model.kind("BackendTrafficPolicy", "ClientTrafficPolicy"):
        if not _concerned(model, policy):
            continue
        http = policy.at("spec", "timeout", "http")
        backend = policy.kind == "BackendTrafficPolicy"
        for place in (
            http.get("requestTimeout") if backend else policy.at("spec", "connection", "maxStreamDuration"),
            http.get("maxStreamDuration"),
            http.get("maxConnectionDuration") if backend else policy.at("spec", "connection", "maxConnectionDuration"),
        ):
            yield from whole_answer(place, str(place.path[-1]))
        place = http.get("streamIdleTimeout")
        if place and (limit := place.seconds()) is not None:
            yield from idle_found(place, limit, False, model.any_heartbeat(), Idle("Envoy Gateway", "", 300, "s"))
        for place in (
            policy.at("spec", "circuitBreaker", "maxParallelRequests"),
            policy.at("spec", "circuitBreaker", "maxConnections"),
            policy.at("spec", "connection", "connectionLimit", "value"),
        ):
            number = place.number
            name = place.path[-2] if place.path[-1] == "value" else place.path[-1]
            if number is not None and number < 1024:
                yield Found(
                    place,
                    f"{name} {number:g}: a stream counts as long as it lives, so the next client after {number:g} of"
                    " them is refused",
                    advice="Above the number of streams that the pods are to hold.",
                    severity=RISKS,
                )


@rule("HW434", "traefik-holds-answers-back", BREAKS, 11)
def traefik_buffers(model: Model) -> Iterator[Found]:
    """Traefik's buffering middleware holds streams back: it reads the whole answer, even if it only limits
    requests.

    Source: Traefik, "Buffering" middleware; traefik/traefik pkg/middlewares/buffering uses vulcand/oxy's buffer, which
    reads the whole answer from the service before it writes any of it.
    """
    for middleware in model.kind("Middleware"):
        place = middleware.at("spec", "buffering")
        if not place:
            continue
        used, known = _middleware_use(model, middleware)
        if used or not known:
            yield Found(
                place,
                "the middleware collects the whole answer before it passes it on, also where only a request's size"
                " is limited: a"
                " stream has no end, so nothing arrives" + ("" if used else " (assumed: the streams' route uses it)"),
                severity=BREAKS if used else RISKS,
                advice="Give the streams' path a route of its own, without this middleware.",
            )
    for middleware in model.kind("Middleware"):
        place = middleware.at("spec", "inFlightReq", "amount")
        if place.number is not None and _middleware_use(model, middleware)[0]:
            yield Found(
                place,
                f"{place.text} requests at a time: a stream counts as long as it lives, and the next client gets 429",
                severity=RISKS,
                advice="Give the streams' path a route of its own, without this middleware.",
            )


def _middleware_use(model: Model, middleware: Object) -> tuple[bool, bool]:
    """Whether the streams' route uses it, and whether any route here does."""
    known = False
    for route in model.routes:
        if route.object.kind == "IngressRoute":
            names = {item.get("name").text for item in route.place.get("middlewares").items()}
        elif route.object.kind == "Ingress":
            text = route.object.annotation("traefik.ingress.kubernetes.io/router.middlewares").text or ""
            names = {name for name in re.findall(r"([\w-]+)@kubernetescrd", text) if name.endswith(middleware.name)}
            names = {middleware.name} if names else set()
        elif route.object.kind == "HTTPRoute":
            names = {item.get("extensionRef", "name").text for item in route.place.get("filters").items()}
        else:
            continue
        if middleware.name in names:
            known = True
            if route.carries:
                return True, True
    return False, known


@rule("HW435", "traefik-write-timeout", BREAKS, 11)
def traefik_write_timeout(model: Model) -> Iterator[Found]:
    """Traefik's entry point has a write time-out, in the values of its chart.

    Source: Traefik, "EntryPoints", respondingTimeouts: writeTimeout "is the maximum duration before timing out writes
    of the response"; readTimeout is for the request, idleTimeout for kept connections.
    """
    for chart in model.kind("HelmChartConfig"):
        place = chart.at("spec", "valuesContent")
        found = re.search(r"write[tT]imeout\W+(\d+\w*)", place.text or "")
        if found and found[1] not in ("0", "0s"):
            yield Found(
                place,
                f"writeTimeout {found[1]} ends every answer at that age, heartbeats or not",
                advice="writeTimeout: 0",
            )
    for config in model.kind("ConfigMap"):
        for _, place in config.at("data").entries():
            text = place.text or ""
            if (
                "entryPoints" in text
                and (found := re.search(r"writeTimeout\W+(\d+\w*)", text))
                and found[1] not in ("0", "0s")
            ):
                yield Found(
                    place,
                    f"Traefik's writeTimeout {found[1]} ends every answer at that age, heartbeats or not",
                    advice="writeTimeout: 0",
                )


@rule("HW436", "emissary-ends-answers", BREAKS, 11)
def emissary_ends_answers(model: Model) -> Iterator[Found]:
    """Emissary's Mapping limits the whole answer, to 3 s by default.

    Source: Emissary-ingress, "Timeouts", timeout_ms: of the whole request, default 3000, 0 disables it;
    idle_timeout_ms, default 300000.
    """
    for route in model.routes:
        if not route.carries or route.object.kind != "Mapping":
            continue
        place = route.place.get("timeout_ms")
        limit = place.seconds(1e-3) if place else 3.0
        if limit is not None and 0 < limit < 3600:
            yield Found(
                place,
                f"{'' if place else 'not set, so '}{limit * 1000:g} ms are for the whole answer: every stream ends"
                f" {say(limit)} after it began, heartbeats or not",
                (Change(place, 0, "0: no limit. It is for the whole answer, and a stream's has no end."),),
            )
