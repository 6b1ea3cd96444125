"""HW41x: Ingress controllers that are set by annotations: ingress-nginx, F5's NGINX, HAProxy, Kong, and OpenShift's
Route. Their idle time-outs, and what makes them hold answers back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..finding import BREAKS, NOTE, RISKS, Change, Found, rule
from ..model import Model
from ..place import Object, Place
from ..units import FOREVER, seconds

NGINX = "nginx.ingress.kubernetes.io"


def controller(ingress: Object) -> str:
    """Which controller serves an Ingress: by its class, else by whose annotations it has; "" if neither tells."""
    keys = ingress.at("metadata", "annotations").keys()
    name = ingress.at("spec", "ingressClassName").text or ingress.annotation("kubernetes.io/ingress.class").text or ""
    prefixes = {key.partition("/")[0] for key in keys}
    if "nginx" in name or (not name and NGINX in prefixes):
        return "f5" if "nginx.org" in prefixes or "nginx.com" in prefixes else "ingress-nginx"
    for word, found in (
        ("alb", "alb"),
        ("gce", "gce"),
        ("traefik", "traefik"),
        ("haproxy", "haproxy"),
        ("contour", "contour"),
        ("kong", "kong"),
        ("openshift", "openshift"),
        ("istio", "istio"),
        ("azure", "agic"),
        ("cilium", "cilium"),
    ):
        if word in name:
            return found
    if name:
        return ""
    for prefix, found in (
        ("nginx.org", "f5"),
        ("alb.ingress.kubernetes.io", "alb"),
        ("haproxy.org", "haproxy"),
        ("haproxy-ingress.github.io", "haproxy"),
        ("projectcontour.io", "contour"),
        ("konghq.com", "kong"),
        ("traefik.ingress.kubernetes.io", "traefik"),
    ):
        if prefix in prefixes:
            return found
    return ""


def nginx_seconds(text: str) -> float | None:
    """ingress-nginx parses an integer; anything else is its default."""
    return float(text) if re.fullmatch(r"\d+", text.strip()) else None


@dataclass(frozen=True, slots=True)
class Idle:
    """A proxy's limit of silence between two pieces of an answer."""

    proxy: str
    key: str  # the annotation
    default: float  # seconds
    unit: str  # what a number of seconds is written with
    parse: Callable[[str], float | None] = seconds


IDLE = {
    "ingress-nginx": Idle("ingress-nginx", f"{NGINX}/proxy-read-timeout", 60, "", nginx_seconds),
    "f5": Idle("NGINX Ingress Controller", "nginx.org/proxy-read-timeout", 60, "s"),
    "haproxy": Idle("HAProxy", "haproxy.org/timeout-server", 50, "s", lambda text: seconds(text, 1e-3)),
}
#: Kong takes it from the Service, in milliseconds.
_KONG = Idle("Kong", "konghq.com/read-timeout", 60, "000", lambda text: seconds(text, 1e-3))
_OPENSHIFT = Idle("OpenShift's router", "haproxy.router.openshift.io/timeout", 30, "s")


#: The reason of a repair where no heartbeat is known.
UNKNOWN_BEAT = (
    "An hour of silence, as no heartbeat is known here. With one each 15 s it can be 75 s, and a dead pod's streams"
    " end sooner."
)


def idle_found(
    place: Place, limit: float, default: bool, beat: float | None, idle: Idle, extra: str = ""
) -> Iterator[Found]:
    """What an idle time-out means for streams with, or without, a known heartbeat."""
    said = f"{'not set, so ' if default else ''}{idle.proxy} ends a stream that is silent for {limit:g} s{extra}"
    if limit == FOREVER or limit == 0:
        return
    if beat is None:
        if limit <= 60:
            yield Found(
                place,
                f"{said}, unless the app sends a heartbeat more often (nothing here shows one)",
                (Change(place, f"3600{idle.unit}", UNKNOWN_BEAT),),
                RISKS,
            )
        return
    change = Change(place, f"{math.ceil(beat * 5)}{idle.unit}", f"Seconds of silence: five heartbeats of {beat:g} s.")
    if limit <= beat:
        yield Found(
            place, f"{said}; the heartbeat comes after {beat:g} s: every quiet stream is cut", (change,), BREAKS
        )
    elif limit < 2 * beat:
        yield Found(place, f"{said}; one heartbeat of {beat:g} s that is late is enough", (change,), RISKS)


@rule("HW411", "proxy-ends-quiet-streams", BREAKS, 11)
def proxy_ends_quiet_streams(model: Model) -> Iterator[Found]:
    """The ingress ends a stream that is silent for some seconds, and no heartbeat is known to be more frequent.

    Source: ingress-nginx, "Annotations", proxy-read-timeout: 60 s, unitless; "NGINX Ingress Controller", "Annotations",
    nginx.org/proxy-read-timeout: 60s; HAProxy, "timeout server", 50s in both Ingress controllers; OpenShift, "Route
    configuration", haproxy.router.openshift.io/timeout: 30s; Kong, "read-timeout": 60000 ms.
    """
    for ingress in model.carriers("Ingress"):
        idle = IDLE.get(controller(ingress))
        if idle is None:
            continue
        place = _haproxy_place(ingress) if idle.proxy == "HAProxy" else ingress.annotation(idle.key)
        snippet = _snippet(ingress, r"(proxy_read_timeout|timeout server)\s+(\d+\w*)")
        if snippet and not place:
            place, text = snippet
            limit = seconds(text)
            if limit is not None and limit > 60:
                continue
        text = place.text or ""
        parsed = idle.parse(text) if place else idle.default
        if parsed is None:
            if idle.proxy == "ingress-nginx":
                yield Found(
                    place,
                    f"{text!r} is ignored: ingress-nginx takes a number of seconds without a unit, and falls back to"
                    f" its default of {idle.default:g} s of silence",
                    (Change(place, unitless(text), "Seconds, without a unit; with one the value is ignored."),),
                    RISKS,
                )
            continue
        yield from idle_found(place, parsed, not place, model.heartbeat(ingress), idle)
    for each in model.routes:
        if each.carries and each.object.kind == "Ingress" and controller(each.object) == "kong":
            for name in each.services:
                service = model.service(name, each.object.namespace)
                if service is not None:
                    place = service.annotation(_KONG.key)
                    limit = _KONG.parse(place.text or "") if place else _KONG.default
                    if limit is not None:
                        yield from idle_found(place, limit, not place, model.heartbeat(each.object), _KONG)
    for route in model.carriers("Route"):
        place = route.annotation(_OPENSHIFT.key)
        parsed = place.seconds(1e-3) if place else _OPENSHIFT.default
        if parsed is not None:
            yield from idle_found(place, parsed, not place, model.heartbeat(route), _OPENSHIFT)


def unitless(text: str) -> str:
    limit = seconds(text)
    return f"{int(limit)}" if limit is not None and limit != FOREVER else "75"


def _haproxy_place(ingress: Object) -> Place:
    other = ingress.annotation("haproxy-ingress.github.io/timeout-server")
    prefixes = {key.partition("/")[0] for key in ingress.at("metadata", "annotations").keys()}
    return (
        other if other or "haproxy-ingress.github.io" in prefixes else ingress.annotation("haproxy.org/timeout-server")
    )


def _snippet(ingress: Object, pattern: str) -> tuple[Place, str] | None:
    """A directive within one of the snippets, and its value."""
    for key, place in ingress.at("metadata", "annotations").entries():
        if key.endswith(("-snippet", "-snippets")) and (found := re.search(pattern, place.text or "")):
            return place, found[2]
    return None


@rule("HW418", "tunnel-time-out", RISKS, 11)
def tunnel_timeout(model: Model) -> Iterator[Found]:
    """A tunnel's time-out is set for streams, which are no tunnels.

    Source: HAProxy, "Configuration Manual", timeout tunnel: it applies "when a bidirectional connection is established
    between a client and a server, and the connection remains inactive in both directions", after an upgrade or CONNECT.
    """
    for object in model.carriers("Ingress", "Route"):
        if object.kind == "Ingress" and controller(object) != "haproxy":
            continue
        name = "timeout" if object.kind == "Route" else "timeout-server"
        for key, place in object.at("metadata", "annotations").entries():
            other = object.annotation(key.replace("timeout-tunnel", name))
            if key.endswith("timeout-tunnel") and not other:
                yield Found(
                    place,
                    f"{key} is for upgraded connections (WebSocket); an event stream goes by {other.path[-1]}, which"
                    " is not set",
                    advice=f"Set {other.path[-1]}.",
                )


@dataclass(frozen=True, slots=True)
class Buffering:
    proxy: str
    key: str
    on: tuple[str, ...]
    default: bool  # it holds answers back unless told not to
    good: str


_BUFFERING = {
    "ingress-nginx": Buffering("ingress-nginx", f"{NGINX}/proxy-buffering", ("on", "true"), False, "off"),
    "f5": Buffering("NGINX Ingress Controller", "nginx.org/proxy-buffering", ("true", "on"), True, "false"),
    "kong": Buffering("Kong", "konghq.com/response-buffering", ("true",), True, "false"),
}


@rule("HW412", "proxy-holds-events-back", BREAKS, 11)
def proxy_holds_events_back(model: Model) -> Iterator[Found]:
    """The ingress collects answers before it passes them on.

    Source: ingress-nginx, "ConfigMap", proxy-buffering: "off" by default; "NGINX Ingress Controller", "Annotations",
    nginx.org/proxy-buffering: True by default; nginx, ngx_http_proxy_module, proxy_buffering: X-Accel-Buffering of an
    answer overrides it; Kong, "response_buffering": true by default.
    """
    for ingress in model.carriers("Ingress"):
        entry = _BUFFERING.get(controller(ingress))
        if entry is None:
            continue
        place = ingress.annotation(entry.key)
        off = _snippet(ingress, r"(proxy_buffering)\s+(off)")
        on = (place.text or "").strip().lower() in entry.on if place else entry.default
        if not on or off:
            continue
        said = f"{place.text!r}" if place else "not set, and on by default"
        yield Found(
            place,
            f"{said}: {entry.proxy} collects an answer in buffers of 4 to 8 KB, so events arrive late and in bursts,"
            " unless every answer says X-Accel-Buffering: no",
            (Change(place, entry.good, "Events go out as they come."),),
        )


@rule("HW413", "setting-without-effect", RISKS, 11)
def setting_without_effect(model: Model) -> Iterator[Found]:
    """A setting that is passed around for streams and does nothing where it stands.

    Source: nginx, ngx_http_proxy_module: X-Accel-Buffering is read from the upstream's answer; AWS Load Balancer
    Controller, "Ingress annotations": idle_timeout.timeout_seconds is an attribute in load-balancer-attributes.
    """
    for ingress in model.carriers("Ingress"):
        kind = controller(ingress)
        for key, place in ingress.at("metadata", "annotations").entries():
            text = place.text or ""
            if key.endswith("-snippet") and re.search(
                r"(add_header|more_set_headers).{0,20}X-Accel-Buffering", text, re.IGNORECASE
            ):
                yield Found(
                    place,
                    "this adds X-Accel-Buffering to what the client gets; nginx obeys it only in what the pod sends,"
                    " so it switches"
                    " no buffering off" + ("" if kind != "ingress-nginx" else " (which is off here by default)"),
                    severity=NOTE if kind == "ingress-nginx" else RISKS,
                    advice="Send the header from the app, or set proxy-buffering.",
                )
            elif kind == "alb" and key.endswith(("connection-idle-timeout", "/idle-timeout")):
                attributes = ingress.annotation("alb.ingress.kubernetes.io/load-balancer-attributes")
                yield Found(
                    place,
                    f"{key} is not read for an ALB: its idle time-out stays {_alb_idle(attributes.text) or 60:g} s",
                    advice="It is idle_timeout.timeout_seconds in load-balancer-attributes.",
                )
            elif (
                key.endswith(("proxy-read-timeout", "proxy-send-timeout", "proxy-buffering"))
                and not key.startswith((NGINX, "nginx.org", "nginx.com"))
                and kind in ("ingress-nginx", "f5")
            ):
                yield Found(place, f"{key} has a prefix that {kind} does not read ({NGINX}/ or nginx.org/)")
            elif kind == "ingress-nginx" and key == f"{NGINX}/proxy-buffering" and text.lower() not in ("on", "off"):
                yield Found(
                    place, f"{text!r} is neither on nor off, so it is ignored (the default is off)", severity=NOTE
                )
            elif kind == "f5" and key.startswith(NGINX):
                yield Found(
                    place, f"{key} belongs to ingress-nginx; NGINX Ingress Controller reads nginx.org/", severity=RISKS
                )
            elif (
                kind not in ("ingress-nginx", "f5", "")
                and key.startswith(NGINX)
                and re.search(r"time-?out|buffering", key)
            ):
                yield Found(
                    place,
                    f"{key} is read by ingress-nginx only; the class of this Ingress is another's ({kind})",
                    severity=RISKS,
                )


def _alb_idle(text: str | None) -> float | None:
    found = re.search(r"idle_timeout\.timeout_seconds=(\d+)", text or "")
    return float(found[1]) if found else None


@rule("HW414", "few-connections-for-each-address", RISKS, 13)
def few_connections(model: Model) -> Iterator[Found]:
    """The ingress limits connections for each client address, and a stream is one for as long as it lives.

    Source: ingress-nginx, "Annotations", "Rate Limiting": limit-connections: "number of concurrent connections allowed
    from a single IP address. A 503 error is returned when exceeding this limit."; OpenShift, "Route-specific
    annotations": rate-limit-connections.concurrent-tcp.
    """
    for ingress in model.carriers("Ingress", "Route"):
        if ingress.kind == "Route":
            place = ingress.annotation("haproxy.router.openshift.io/rate-limit-connections.concurrent-tcp")
        else:
            place = ingress.annotation(f"{NGINX}/limit-connections")
        limit = place.number
        known = ingress.kind == "Route" or controller(ingress) == "ingress-nginx"
        if known and limit is not None and 0 < limit < 100:
            yield Found(
                place,
                f"{limit:g} connections an address: everybody behind one office, or one phone network, shares"
                f" {limit:g} streams, and the next one gets 503 again and again",
                advice="Limit where people are told apart, in the app.",
            )


@rule("HW415", "http-1.0-to-the-pod", RISKS, 11)
def http_10(model: Model) -> Iterator[Found]:
    """The ingress is told to speak HTTP/1.0 to the pod.

    Source: nginx, ngx_http_proxy_module, proxy_http_version; RFC 9112, 7.1: a server must not send chunks to an
    HTTP/1.0 client, so an answer's end is the connection's end.
    """
    for ingress in model.carriers("Ingress"):
        place = ingress.annotation(f"{NGINX}/proxy-http-version")
        if controller(ingress) == "ingress-nginx" and place.text == "1.0":
            yield Found(
                place,
                "HTTP/1.0 has no chunks: a cut stream looks like a finished one, no connection is kept, and some"
                " servers hold an answer back until they know its length",
                (Change(place, "1.1", "Chunks, and kept connections."),),
            )
