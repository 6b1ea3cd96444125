"""Routes to Services, of every known kind, and which of them streams take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .place import Object, Place

#: Path segments that name a stream, for use without --stream-path.
STREAM_WORDS = frozenset(
    """
    sse event events stream streams event-stream eventsource subscribe subscriptions updates feed
    notifications notify watch chat completions mcp push realtime listen messages messaging live-updates tail
    """.split()
)

#: The unmistakable ones: a probe of such a path is aimed at a stream.
SURE_WORDS = frozenset({"sse", "stream", "streams", "event-stream", "eventsource", "events"})

HEALTH_WORDS = re.compile(r"(health|ready|live|ping|status|startup|probe|alive|check|canary)", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class Route:
    """One rule of a route object."""

    object: Object
    place: Place  # the rule
    paths: tuple[tuple[str, str], ...]  # ("prefix" | "exact" | "regex", path); empty: every path
    services: tuple[str, ...]
    carries: bool = False

    @property
    def names_stream(self) -> bool:
        return any(names_stream(path) for _, path in self.paths)


def routes_of(object: Object) -> Iterator[Route]:
    reader = _READERS.get(object.kind)
    if reader is not None:
        yield from reader(object)


def _ingress(object: Object) -> Iterator[Route]:
    default = object.at("spec", "defaultBackend")
    if default:
        yield Route(object, default, (), (default.get("service", "name").text or "",))
    for rule in object.at("spec", "rules").items():
        for path in rule.get("http", "paths").items():
            text = path.get("path").text or "/"
            kind = "exact" if path.get("pathType").text == "Exact" else "prefix"
            backend = path.get("backend")
            service = backend.get("service", "name").text or backend.get("serviceName").text or ""
            yield Route(object, path, ((kind, text),), (service,))


def _gateway_route(object: Object) -> Iterator[Route]:
    kinds = {"PathPrefix": "prefix", "Exact": "exact", "RegularExpression": "regex"}
    for rule in object.at("spec", "rules").items():
        paths = []
        for match in rule.get("matches").items():
            path = match.get("path")
            paths.append((kinds.get(path.get("type").text or "PathPrefix", "prefix"), path.get("value").text or "/"))
        services = tuple(backend.get("name").text or "" for backend in rule.get("backendRefs").items())
        yield Route(object, rule, tuple(paths), services)


def _virtual_service(object: Object) -> Iterator[Route]:
    for rule in object.at("spec", "http").items():
        paths = []
        for match in rule.get("match").items():
            uri = match.get("uri")
            kind = next((key for key in ("prefix", "exact", "regex") if uri.get(key)), None)
            paths.append((kind or "prefix", uri.get(kind).text or "/" if kind else "/"))
        hosts = tuple(
            (target.get("destination", "host").text or "").partition(".")[0] for target in rule.get("route").items()
        )
        yield Route(object, rule, tuple(paths), hosts)


def _http_proxy(object: Object) -> Iterator[Route]:
    for rule in object.at("spec", "routes").items():
        paths = tuple(
            (kind, condition.get(kind).text or "/")
            for condition in rule.get("conditions").items()
            for kind in ("prefix", "exact", "regex")
            if condition.get(kind)
        )
        services = tuple(service.get("name").text or "" for service in rule.get("services").items())
        yield Route(object, rule, paths, services)


def _openshift(object: Object) -> Iterator[Route]:
    path = object.at("spec", "path").text
    yield Route(
        object, object.at("spec"), (("prefix", path),) if path else (), (object.at("spec", "to", "name").text or "",)
    )


def _ingress_route(object: Object) -> Iterator[Route]:
    for rule in object.at("spec", "routes").items():
        match = rule.get("match").text or ""
        paths = tuple(
            ("prefix" if kind == "PathPrefix" else "regex" if kind == "PathRegexp" else "exact", path)
            for kind, arguments in re.findall(r"(PathPrefix|PathRegexp|Path)\(([^)]*)\)", match)
            for path in re.findall(r"[`'\"]([^`'\"]+)[`'\"]", arguments)
        )
        services = tuple(service.get("name").text or "" for service in rule.get("services").items())
        yield Route(object, rule, paths, services)


def _mapping(object: Object) -> Iterator[Route]:
    prefix = object.at("spec", "prefix").text or "/"
    kind = "regex" if object.at("spec", "prefix_regex").true else "prefix"
    service = re.sub(r"^\w+://|[:.].*$", "", object.at("spec", "service").text or "")
    yield Route(object, object.at("spec"), ((kind, prefix),), (service,))


_READERS = {
    "Ingress": _ingress,
    "HTTPRoute": _gateway_route,
    "GRPCRoute": _gateway_route,
    "VirtualService": _virtual_service,
    "HTTPProxy": _http_proxy,
    "Route": _openshift,
    "IngressRoute": _ingress_route,
    "Mapping": _mapping,
}


def mark_carriers(routes: list[Route], stream_path: str | None) -> None:
    """Set ``carries``: with a stream's path, on the most specific routes that match it; else on those whose path names
    a stream, and those that take any path. If there is none, on all."""
    if stream_path is not None:
        for group in _by_host(routes):
            ranks = [
                max((_rank(kind, path, stream_path) for kind, path in route.paths or (("prefix", "/"),)))
                for route in group
            ]
            best = max(ranks, default=-1)
            for route, rank in zip(group, ranks, strict=True):
                route.carries = rank >= 0 and rank == best
        return
    for route in routes:
        route.carries = not route.paths or any(names_stream(path) or takes_all(path) for _, path in route.paths)
    if not any(route.carries for route in routes):
        for route in routes:
            route.carries = True


def _by_host(routes: Iterable[Route]) -> list[list[Route]]:
    """Group the routes that compete: those of one kind and the same hosts."""
    groups: dict[tuple[str, str], list[Route]] = {}
    for route in routes:
        spec = route.object.at("spec")
        hosts = sorted(
            [host.text or "" for name in ("hosts", "hostnames") for host in spec.get(name).items()]
            + [rule.get("host").text or "" for rule in spec.get("rules").items()]
            + [spec.get("host").text or spec.get("virtualhost", "fqdn").text or ""]
        )
        groups.setdefault((route.object.kind, ",".join(hosts)), []).append(route)
    return list(groups.values())


def _rank(kind: str, path: str, stream_path: str) -> int:
    """Return how specifically a route matches; -1 if it does not."""
    if kind == "regex" or re.search(r"[(\[^$\\|]|\.\*", path):
        try:
            return len(path) if re.match(path, stream_path) else -1
        except re.error:
            return -1
    prefix = path.removesuffix("*").rstrip("/")
    if kind == "exact" and not path.endswith("*"):
        return len(path) + 1 if path.rstrip("/") == stream_path.rstrip("/") else -1
    if not prefix or stream_path.rstrip("/") == prefix or stream_path.startswith(prefix + "/"):
        return len(prefix)
    return -1


def names_stream(path: str) -> bool:
    segments = [segment.lower() for segment in re.split(r"[/?(]+", path) if segment]
    return any(re.sub(r"[^a-z-]", "", segment) in STREAM_WORDS for segment in segments) and not (
        segments and HEALTH_WORDS.search(segments[-1])
    )


def takes_all(path: str) -> bool:
    return path in ("", "/", "/*", "/.*", "/(.*)", "(/|$)(.*)", "/()(.*)", "^/") or path.startswith("/(.*")
