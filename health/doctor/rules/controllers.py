"""HW41x, of the controllers themselves: ingress-nginx's own ConfigMap, and Contour's limits of a whole answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import BREAKS, RISKS, Change, Found, Severity, rule
from ..model import Model
from ..place import Place
from ..units import FOREVER, say
from .ingress import IDLE, Idle, controller, idle_found, nginx_seconds, unitless


@rule("HW416", "controller-cuts-on-reload", RISKS, 11)
def controller_cuts_on_reload(model: Model) -> Iterator[Found]:
    """ingress-nginx's own ConfigMap: any change of any Ingress cuts the streams some time later, or it compresses or
    buffers them all.

    Source: ingress-nginx, "ConfigMap": worker-shutdown-timeout 240s, "Sets a timeout for Nginx to wait for worker to
    gracefully shutdown"; proxy-buffering "off"; proxy-read-timeout 60; gzip-types.
    """
    for config in model.kind("ConfigMap"):
        data = config.at("data")
        keys = set(data.keys())
        if not re.search(r"ingress-nginx|nginx-ingress|nginx-configuration", config.name) or any(
            "{" in (place.text or "") for _, place in data.entries()
        ):
            continue
        if (
            "nginx.org" in "".join(keys)
            or not keys
            & {
                "worker-shutdown-timeout",
                "proxy-read-timeout",
                "proxy-buffering",
                "use-gzip",
                "allow-snippet-annotations",
                "use-forwarded-headers",
                "proxy-body-size",
                "gzip-types",
                "proxy-send-timeout",
                "annotations-risk-level",
                "keep-alive",
                "enable-brotli",
            }
            and keys
        ):
            continue
        shutdown = data.get("worker-shutdown-timeout")
        limit = shutdown.seconds() if shutdown else 240.0
        if limit is not None and limit < 3600:
            yield Found(
                shutdown,
                f"{'not set, so' if not shutdown else 'it says'} {say(limit)}: after any change of any Ingress the"
                f" old workers of nginx are ended {say(limit)} later, and all streams through them at once",
                (
                    Change(
                        shutdown, "3600s", "How long streams outlive a reload; each reload keeps its workers that long."
                    ),
                ),
            )
        if (data.get("proxy-buffering").text or "").lower() in ("on", "true"):
            place = data.get("proxy-buffering")
            yield Found(
                place,
                "buffering is switched on for every Ingress: events arrive late and in bursts, unless every answer"
                " says X-Accel-Buffering: no",
                (Change(place, "off", "Events go out as they come."),),
                BREAKS,
            )
        types = data.get("gzip-types")
        if (types.text or "").strip() == "*" or "text/event-stream" in (types.text or ""):
            if data.get("use-gzip").true:
                yield Found(
                    types, "event streams are compressed: small events wait in the compressor until its block is full"
                )
        place = data.get("proxy-read-timeout")
        if place and nginx_seconds(place.text or "") is None:
            yield Found(
                place,
                f"{place.text!r} is ignored: a number of seconds without a unit, else the default of 60 s of silence",
                (Change(place, unitless(place.text or ""), "Seconds, without a unit."),),
            )
        elif place and (limit := nginx_seconds(place.text or "")) is not None:
            idle = IDLE["ingress-nginx"]
            yield from idle_found(place, limit, False, model.any_heartbeat(), idle)


@rule("HW417", "contour-ends-answers", BREAKS, 11)
def contour_ends_answers(model: Model) -> Iterator[Found]:
    """Contour leaves Envoy's limit of 15 s for a whole answer.

    Source: Contour, "Annotations", projectcontour.io/response-timeout: "The Envoy HTTP route timeout"; "HTTPProxy",
    "Request Routing", timeoutPolicy.response: "If not supplied, Envoy's default value of 15s applies".
    """
    for ingress in model.carriers("Ingress"):
        if controller(ingress) == "contour":
            yield from _contour(ingress.annotation("projectcontour.io/response-timeout"), "response-timeout")
    for route in model.routes:
        if (
            route.carries
            and route.object.kind == "HTTPProxy"
            and not (route.place.get("timeoutPolicy", "response") and model.beside_the_streams(route))
        ):
            yield from _contour(route.place.get("timeoutPolicy", "response"), "timeoutPolicy.response")
            idle = route.place.get("timeoutPolicy", "idle")
            if idle and (limit := idle.seconds()) is not None:
                yield from idle_found(idle, limit, False, model.heartbeat(route.object), Idle("Contour", "", 300, "s"))


def _contour(place: Place, name: str) -> Iterator[Found]:
    limit = place.seconds() if place else 15.0
    if limit is None or limit in (0, FOREVER) or limit >= 3600:
        return
    severity: Severity = BREAKS if limit < 600 else RISKS
    said = f"{name} {place.text}" if place else f"no {name}, so Envoy's default of 15 s"
    yield Found(
        place,
        f"{said} is for the whole answer: every stream ends {limit:g} s after it began, heartbeats or not",
        (Change(place, "infinity", "For the whole answer, so none; a dead stream is found by its silence."),),
        severity,
    )
