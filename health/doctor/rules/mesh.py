"""HW44x: Istio, Linkerd, Envoy's own configuration, and Knative."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..errors import CannotRun
from ..finding import BREAKS, RISKS, Change, Found, rule
from ..graceful import graceful
from ..model import Model
from ..place import Object, Place
from ..traffic import names_stream
from ..tree import parse
from ..units import FOREVER, say, seconds
from ..workloads import Workload
from .gateways import whole_answer
from .hooks import hook_pause
from .ingress import Idle, idle_found


@rule("HW441", "mesh-ends-answers", BREAKS, 11)
def mesh_ends_answers(model: Model) -> Iterator[Found]:
    """A mesh's route limits the whole answer.

    Source: Istio, VirtualService, HTTPRoute.timeout: "Timeout for HTTP requests, default is disabled"; Envoy, "How do I
    configure timeouts?": the route timeout "is not compatible with streaming responses"; Linkerd, "Timeouts":
    timeout.linkerd.io/request and response; ServiceProfile, timeout.
    """
    for route in model.routes:
        if route.carries and route.object.kind == "VirtualService" and not model.beside_the_streams(route):
            yield from whole_answer(route.place.get("timeout"), "timeout")
    for profile in model.kind("ServiceProfile"):
        for each in profile.at("spec", "routes").items():
            path = re.sub(r"[\\^$]", "", each.get("condition", "pathRegex").text or "/")
            if path.rstrip("/") == model.stream_path.rstrip("/") if model.stream_path else names_stream(path):
                yield from whole_answer(each.get("timeout"), "timeout")
    for service in model.services:
        if any(workload in model.streaming for workload in model.selected(service)):
            for name in ("request", "response"):
                place = service.annotation(f"timeout.linkerd.io/{name}")
                yield from whole_answer(place, f"timeout.linkerd.io/{name}")
            place = service.annotation("timeout.linkerd.io/idle")
            if place and (limit := place.seconds()) is not None:
                yield from idle_found(place, limit, False, model.any_heartbeat(), Idle("Linkerd", "", 0, "s"))


@rule("HW442", "sidecar-goes-first", RISKS, 9)
def sidecar_goes_first(model: Model) -> Iterator[Found]:
    """Istio's sidecar ends before the app has drained, and takes all streams with it.

    Source: Istio, ProxyConfig, terminationDrainDuration: "The amount of time allowed for connections to complete on
    proxy shutdown […] Defaults to 5s"; "Native sidecars" end after the app.
    """
    for workload in model.streaming:
        if not _has_sidecar(model, workload):
            continue
        need, what = 0.0, ""
        for container in workload.containers:
            known = graceful(model.server(container))
            rest = known.seconds if known and known.seconds != FOREVER else 0
            pause = hook_pause(container)
            if pause + rest > need:
                need = pause + rest
                what = (
                    (f"preStop {pause:g} s" if pause else "")
                    + (" and " if pause and rest else "")
                    + (known.what if known and rest else "")
                )
        place = workload.template.get("metadata", "annotations", "proxy.istio.io/config")
        text = place.text or ""
        found = re.search(r"terminationDrainDuration\W+(\w+)", text)
        limit = seconds(found[1]) if found else 5.0
        if need <= (limit or 0) or "EXIT_ON_ZERO_ACTIVE_CONNECTIONS" in text or _native(workload):
            continue
        if found:
            value = text[: found.start(1)] + f"{need:g}s" + text[found.end(1) :]
        else:
            value = (f"{text.rstrip()}\n" if text else "") + f"terminationDrainDuration: {need:g}s"
        inline = text.lstrip().startswith("{") and not found  # JSON: nothing can be put behind it
        yield Found(
            place,
            f"{'no terminationDrainDuration, so' if not found else 'terminationDrainDuration'} {limit:g} s: unless"
            f" sidecars are native, Istio's ends {limit:g} s after SIGTERM and takes all streams with it, while the"
            f" app still drains ({what})",
            () if inline else (Change(place, value, f"As long as the app drains: {what}."),),
            advice=f"terminationDrainDuration: {need:g}s" if inline else "",
        )


def _has_sidecar(model: Model, workload: Workload) -> bool:
    for key in ("labels", "annotations"):
        value = workload.template.get("metadata", key, "sidecar.istio.io/inject").text
        if value is not None:
            return value == "true"
    if any(
        "istio-proxy" == container.get("name").text
        for name in ("containers", "initContainers")
        for container in workload.pod.get(name).items()
    ):
        return True
    namespace = workload.object.namespace
    return any(
        each.name == namespace and each.at("metadata", "labels", "istio-injection").text == "enabled"
        for each in model.kind("Namespace")
    )


def _native(workload: Workload) -> bool:
    return workload.template.get("metadata", "annotations", "sidecar.istio.io/nativeSidecar").text == "true"


@rule("HW443", "connection-limits-of-the-mesh", RISKS, 1)
def connection_limits(model: Model) -> Iterator[Found]:
    """A DestinationRule limits connections or requests, and each stream holds one.

    Source: Istio, ConnectionPoolSettings: tcp.maxConnections, http.http2MaxRequests ("Maximum number of active requests
    to a destination"), tcp.maxConnectionDuration.
    """
    for destination in model.kind("DestinationRule"):
        if not _concerns(model, destination):
            continue
        pool = destination.at("spec", "trafficPolicy", "connectionPool")
        for place in (
            pool.get("tcp", "maxConnections"),
            pool.get("http", "http2MaxRequests"),
            pool.get("http", "http1MaxPendingRequests"),
        ):
            number = place.number
            if number is not None and 0 < number < 1024:
                yield Found(
                    place,
                    f"{place.path[-1]} {number:g}: a stream holds its place as long as it lives, so after {number:g}"
                    " of them the next client gets 503",
                    advice="Above the number of streams that the pods are to hold.",
                )
        duration = pool.get("tcp", "maxConnectionDuration")
        for each in whole_answer(duration, "maxConnectionDuration"):
            yield Found(each.place, each.reason, each.changes, each.severity)


def _concerns(model: Model, destination: Object) -> bool:
    name = (destination.at("spec", "host").text or "").partition(".")[0]
    carried = {service for route in model.routes if route.carries for service in route.services}
    services = {service.name for workload in model.streaming for service in model.services_of(workload)}
    return name in carried | services or not carried | services


#: Envoy's settings that end streams: those of a whole answer or connection, and those of silence.
_AGE = {
    "max_stream_duration",
    "max_connection_duration",
    "maxStreamDuration",
    "maxConnectionDuration",
    "max_grpc_timeout",
}
_SILENCE = {"stream_idle_timeout", "streamIdleTimeout"}


@rule("HW444", "envoy-ends-streams", BREAKS, 11)
def envoy_ends_streams(model: Model) -> Iterator[Found]:
    """Envoy's own configuration, in an EnvoyFilter or a ConfigMap, ends streams.

    Source: Envoy, "How do I configure timeouts?": the route's timeout "defaults to 15 seconds", stream_idle_timeout to
    5 minutes; max_stream_duration, "the maximum time that a stream's lifetime will span"; idle_timeout of a connection
    only without streams.
    """
    for filter in model.kind("EnvoyFilter", "CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig", "EnvoyPatchPolicy"):
        for place in filter.at("spec").walk():
            yield from _envoy_field(model, place, place)
    for config in model.kind("ConfigMap"):
        for key, place in config.at("data").entries():
            text = place.text or ""
            if re.search(r"\.(ya?ml|json)$", key) and "static_resources" in text and "{{" not in text:
                yield from _envoy_file(model, place, text)


def _envoy_field(model: Model, field: Place, where: Place) -> Iterator[Found]:
    name = field.path[-1] if field.path else ""
    if name in _AGE and field.text is not None:
        limit = field.seconds()
        if limit not in (None, 0, FOREVER):
            yield Found(
                field if where is field else where,
                f"{name} {field.text}: every stream ends {say(limit or 0)} after it began, heartbeats or not",
                (Change(field, "0s", "0: no limit."),) if where is field else (),
            )
    elif (name in _SILENCE or (name == "idle_timeout" and _in_route(field))) and (limit := field.seconds()) is not None:
        for each in idle_found(where, limit, False, model.any_heartbeat(), Idle("Envoy", "", 300, "s")):
            yield each if where is field else Found(where, f"{name}: {each.reason}", (), each.severity)
    elif name == "timeout" and _in_route(field):
        for each in whole_answer(field, "the route's timeout"):
            yield each if where is field else Found(where, each.reason, (), each.severity)


def _in_route(field: Place) -> bool:
    return field.parent is not None and field.parent.path[-1:] == ("route",)


def _envoy_file(model: Model, where: Place, text: str) -> Iterator[Found]:
    try:
        documents = parse(text, where.field)
    except CannotRun:
        return
    for document in documents:
        inner = Object(document, where.object.file, where.object.document)
        routes = []
        for place in inner.at().walk():
            yield from _envoy_field(model, place, where)
            if place.path and place.path[-1] == "route" and place.get("cluster"):
                routes.append(place)
        if any(not route.get("timeout") for route in routes):
            missing = [route for route in routes if not route.get("timeout")]
            path = missing[0].parent.get("match", "prefix").text if missing[0].parent is not None else None
            if (
                all(
                    route.get("timeout") is not None and route.get("timeout").text in ("0s", "0")
                    for route in routes
                    if route not in missing
                )
                and len(missing) < len(routes)
                and path in ("/", None)
                and model.stream_path is None
            ):
                continue  # another route of it is made for streams
            yield Found(
                where,
                f"the route to {missing[0].get('cluster').text} ({path or 'any path'}) has no timeout, so Envoy's"
                " default of 15 s ends every answer, heartbeats or not",
                advice="timeout: 0s on the streams' route.",
            )


@rule("HW445", "knative-ends-answers", BREAKS, 11)
def knative_ends_answers(model: Model) -> Iterator[Found]:
    """Knative ends each request after timeoutSeconds, 300 by default, and admits so many to a pod.

    Source: Knative, "Configuring the Defaults ConfigMap", revision-timeout-seconds: 300, "per-request timeout";
    "Configuring concurrency", containerConcurrency: a hard limit of requests at a time.
    """
    for service in model.kind("Service"):
        if not model.knative(service):
            continue
        spec = service.at("spec", "template", "spec")
        place = spec.get("timeoutSeconds")
        limit = place.number if place else 300.0
        if limit is not None and 0 < limit < 3600:
            yield Found(
                place,
                f"{'' if place else 'not set, so '}{limit:g} s: Knative ends every answer after {say(limit)},"
                " heartbeats or not",
                (
                    Change(
                        place,
                        3600,
                        "For the whole answer. config-defaults' max-revision-timeout-seconds must allow it.",
                    ),
                ),
                RISKS if limit >= 600 else BREAKS,
                advice="The most is max-revision-timeout-seconds (600) of the ConfigMap config-defaults.",
            )
        idle = spec.get("idleTimeoutSeconds")
        if idle.number:
            yield from idle_found(idle, idle.number, False, None, Idle("Knative", "", 0, ""))
        concurrency = spec.get("containerConcurrency")
        if concurrency.number is not None and 0 < concurrency.number < 100:
            yield Found(
                concurrency,
                f"{concurrency.number:g}: a stream is a request for as long as it lives, so a pod holds"
                f" {concurrency.number:g} streams and each further client needs another pod",
                (Change(concurrency, 0, "0: no limit for each pod."),),
                RISKS,
            )
