"""HW45x: nginx and HAProxy of one's own, by the configuration in a ConfigMap."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import images, nginxconf
from ..finding import BREAKS, NOTE, RISKS, Found, Severity, rule
from ..model import Model
from ..nginxconf import Block
from ..place import Place
from ..traffic import names_stream
from ..units import FOREVER, seconds
from ..workloads import LIVENESS, READINESS, Container, heartbeat

#: The directives of each way to pass a request on.
_PASSES = {
    "proxy_pass": "proxy",
    "fastcgi_pass": "fastcgi",
    "uwsgi_pass": "uwsgi",
    "scgi_pass": "scgi",
    "grpc_pass": "grpc",
}


def configurations(model: Model) -> Iterator[tuple[Place, Block]]:
    """Every nginx configuration in a ConfigMap."""
    for config in model.kind("ConfigMap"):
        for _, place in config.at("data").entries():
            text = place.text or ""
            if ("_pass" in text or "server {" in text) and "{" in text and (root := nginxconf.parse(text)) is not None:
                yield place, root


def _at(place: Place, line: int) -> Place:
    """The ConfigMap's key, with the line of a directive in its block scalar."""
    if place.node is None or place.node.style not in ("|", ">"):
        return place
    return Place(place.object, place.node, place.path, place.field, place.node.start.line + 2 + line, place.parent)


def streaming_locations(model: Model, root: Block) -> list[tuple[Block, str]]:
    """The locations that pass streams on, and how."""
    found = []
    for block in root.walk():
        if block.name in ("location", "if") or (block.name == "server" and not block.blocks):
            for directive, how in _PASSES.items():
                if block.get(directive, inherit=False):
                    found.append((block, how))
    if model.stream_path is not None:
        ranked = [(_rank(block, model.stream_path), block, how) for block, how in found]
        best = max((rank for rank, _, _ in ranked), default=-1)
        return [(block, how) for rank, block, how in ranked if rank == best and rank >= 0]
    named = [(block, how) for block, how in found if names_stream(_path(block))]
    if named:
        return named
    general = [(block, how) for block, how in found if _path(block) in ("/", "")]
    return general or found


def _path(block: Block) -> str:
    return block.arguments[-1] if block.arguments else ""


def _rank(block: Block, stream: str) -> int:
    path = _path(block)
    kind = block.arguments[0] if len(block.arguments) > 1 else ""
    if kind == "=":
        return 10_000 if path == stream else -1
    if kind in ("~", "~*"):
        try:
            return 5_000 if re.search(path, stream) else -1
        except re.error:
            return -1
    return len(path) if stream.startswith(path.rstrip("/") or "/") else -1


@rule("HW451", "nginx-holds-events-back", BREAKS, 11)
def nginx_buffers(model: Model) -> Iterator[Found]:
    """nginx collects answers (its default), caches or compresses them.

    Source: nginx, ngx_http_proxy_module, proxy_buffering: "Default: proxy_buffering on;"; ngx_http_gzip_module,
    gzip_types; the same of uwsgi_buffering, fastcgi_buffering and scgi_buffering.
    """
    for place, root in configurations(model):
        for block, how in streaming_locations(model, root):
            where = f"location {' '.join(block.arguments)}" if block.name == "location" else block.name
            if how == "grpc":
                continue
            found = block.get(f"{how}_buffering")
            if found is None or found[0][:1] != ["off"]:
                line = found[1] if found else block.line
                said = (
                    f"{how}_buffering {found[0][0]}"
                    if found and found[0]
                    else f"no {how}_buffering off, and nginx's default is on"
                )
                added = block.get("add_header")
                if added and added[0][:1] == ["X-Accel-Buffering"]:
                    said += " (add_header X-Accel-Buffering tells only the client)"
                yield Found(
                    _at(place, line),
                    f"{where}: {said}: events are collected in buffers of 4 to 8 KB, and arrive late and in bursts,"
                    " unless every answer says X-Accel-Buffering: no",
                    advice=f"{how}_buffering off;",
                )
                break
        for block, _ in streaming_locations(model, root):
            gzip, types = block.get("gzip"), block.get("gzip_types")
            if gzip and gzip[0][:1] == ["on"] and types and ({"*", "text/event-stream"} & set(types[0])):
                yield Found(
                    _at(place, types[1]),
                    "gzip_types takes in event streams: small events wait in the compressor until its block is full,"
                    " or the next flush",
                    severity=RISKS,
                    advice="Leave text/event-stream out of gzip_types, or gzip off; in the streams' location.",
                )
                break


@rule("HW452", "nginx-ends-quiet-streams", BREAKS, 11)
def nginx_idle(model: Model) -> Iterator[Found]:
    """nginx ends a stream that is silent for proxy_read_timeout.

    Source: nginx, ngx_http_proxy_module, proxy_read_timeout: "Default: proxy_read_timeout 60s; […] only between two
    successive read operations, not for the transmission of the whole response".
    """
    for place, root in configurations(model):
        beat = _beat_behind(model)
        for block, how in streaming_locations(model, root):
            found = block.get(f"{how}_read_timeout")
            limit = seconds(found[0][0]) if found and found[0] else 60.0
            if limit is None or limit == FOREVER:
                continue
            said = f"{how}_read_timeout {found[0][0]}" if found else f"no {how}_read_timeout, so 60 s"
            spot = _at(place, found[1] if found else block.line)
            if beat is not None and limit <= beat:
                yield Found(
                    spot,
                    f"{said}, and the heartbeat is sent after {beat:g} s: every quiet stream is cut",
                    advice=f"{how}_read_timeout {beat * 5:g}s;",
                )
            elif beat is None and limit <= 60:
                yield Found(
                    spot,
                    f"{said}: a stream that is silent for {limit:g} s is ended, unless the app sends a heartbeat more"
                    " often (nothing here shows one)",
                    severity=RISKS,
                    advice=f"{how}_read_timeout 75s; and a heartbeat each 15 s.",
                )
            else:
                continue
            break


def _beat_behind(model: Model) -> float | None:
    beats = [
        beat
        for workload in model.workloads
        for container in workload.containers
        if (beat := heartbeat(container.env)) is not None
    ]
    return min(beats, default=None)


@rule("HW453", "nginx-speaks-http-1.0", NOTE, 11)
def nginx_http_10(model: Model) -> Iterator[Found]:
    """nginx before 1.29.7 speaks HTTP/1.0 to the server unless told otherwise.

    Source: nginx, ngx_http_proxy_module, proxy_http_version: 1.0 by default before 1.29.7, 1.1 since.
    """
    for place, root in configurations(model):
        version = _version(model, place)
        if version is not None and version >= (1, 29, 7):
            continue
        for block, how in streaming_locations(model, root):
            found = block.get("proxy_http_version")
            if how != "proxy" or (found and found[0][:1] != ["1.0"]):
                continue
            yield Found(
                _at(place, found[1] if found else block.line),
                "no proxy_http_version 1.1: before 1.29.7 nginx asks with HTTP/1.0, which has no chunks: a cut"
                " stream looks like a finished one, and some servers hold answers back"
                + ("" if version else " (assumed: nginx before 1.29.7)"),
                advice='proxy_http_version 1.1; proxy_set_header Connection "";',
            )
            break


def _users(model: Model, place: Place) -> list[Container]:
    """The containers that mount a ConfigMap."""
    found = []
    for workload in model.workloads:
        volumes = {
            volume.get("name").text
            for volume in workload.pod.get("volumes").items()
            if volume.get("configMap", "name").text == place.object.name
        }
        found += [container for container in workload.containers if volumes & set(container.mounts.values())]
    return found


def _version(model: Model, place: Place) -> tuple[int, ...] | None:
    for container in _users(model, place):
        image = images.read(container.image)
        if image.name.rpartition("/")[2] == "nginx" and (found := re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", image.tag)):
            return tuple(int(part or 999) for part in found.groups())
    return None


@rule("HW454", "probe-that-the-proxy-answers", RISKS, 6)
def probe_that_the_proxy_answers(model: Model) -> Iterator[Found]:
    """A probe is answered by the proxy in front of the server, which is green whatever the server does.

    Source: nginx, ngx_http_rewrite_module, return: it answers without the upstream.
    """
    for place, root in configurations(model):
        returns = {
            _path(block)
            for block in root.walk()
            if block.name == "location"
            and (found := block.get("return", inherit=False))
            and found[0][:1] in (["200"], ["204"])
        }
        for container in _users(model, place):
            others = [each for each in container.workload.containers if each is not container]
            if not others or not _passes_within(root):
                continue
            for kind in (READINESS, LIVENESS):
                if any(kind in each.probes for each in others):
                    continue
                probe = container.probes.get(kind)
                if probe is not None and probe.action == "http" and probe.path in returns:
                    yield Found(
                        probe.place.get("httpGet", "path"),
                        f"{probe.path} is answered by nginx itself (`return` in {place.field}); {others[0].name},"
                        " which has the streams, is asked by no probe: it may be stuck, or not have started, and all"
                        " is green",
                        advice=f"Pass {probe.path} on to {others[0].name}, or give that container probes of its own.",
                    )


def _passes_within(root: Block) -> bool:
    """True if it passes requests to the same pod."""
    targets = [
        argument
        for block in root.walk()
        for name, arguments, _ in block.directives
        if name in _PASSES or name == "server"
        for argument in arguments
    ]
    return any(re.search(r"localhost|127\.0\.0\.1|\[::1\]|unix:", target) for target in targets)


@rule("HW456", "few-connections-in-nginx", NOTE, 1)
def nginx_connections(model: Model) -> Iterator[Found]:
    """nginx' worker_connections are few: each stream takes two, one on either side.

    Source: nginx, ngx_core_module, worker_connections: "this number includes all connections (e.g. connections with
    proxied servers, among others), not only connections with clients"; 512 by default.
    """
    for place, root in configurations(model):
        events = next((block for block in root.blocks if block.name == "events"), None)
        found = events.get("worker_connections") if events is not None else None
        if events is None or not streaming_locations(model, root):
            continue
        number = int(found[0][0]) if found and found[0] and found[0][0].isdigit() else 512
        if number < 1024:
            yield Found(
                _at(place, found[1] if found else events.line),
                f"worker_connections {number}{'' if found else ' (the default)'}: a stream takes two of them, so each"
                f" worker holds {number // 2} streams, and refuses the next",
                advice="Twice as many as the streams that a pod is to hold, and room.",
            )


@rule("HW455", "haproxy-ends-quiet-streams", BREAKS, 11)
def haproxy_idle(model: Model) -> Iterator[Found]:
    """HAProxy's `timeout server` or `timeout client` ends streams that are silent.

    Source: HAProxy, "Configuration Manual", 4.2, timeout server: "the maximum inactivity time on the server side";
    timeout tunnel is for upgraded connections only.
    """
    for config in model.kind("ConfigMap"):
        for key, place in config.at("data").entries():
            text = place.text or ""
            if key in ("timeout-server", "timeout-client"):
                found = [("", text.strip())]
            elif re.search(r"^\s*(frontend|backend|listen|defaults)\b", text, re.MULTILINE) and "timeout" in text:
                found = re.findall(r"^\s*timeout\s+(server|client)\s+(\w+)", text, re.MULTILINE)
            else:
                continue
            limits = [(limit, name, value) for name, value in found if (limit := seconds(value, 1e-3)) is not None]
            if not limits:
                continue
            limit, name, value = min(limits)
            beat = _beat_behind(model)
            if limit > (60 if beat is None else beat):
                continue
            severity: Severity = RISKS if beat is None else BREAKS
            line = next(
                (
                    number
                    for number, row in enumerate(text.splitlines())
                    if re.search(rf"timeout\s+{name}\s+{value}", row)
                ),
                0,
            )
            yield Found(
                _at(place, line),
                f"timeout {name or key.partition('-')[2]} {value}: HAProxy ends a stream over which nothing came for"
                f" {limit:g} s" + ("" if beat is None else f", and the heartbeat is sent after {beat:g} s"),
                severity=severity,
                advice="timeout server 75s and timeout client 75s, and a heartbeat each 15 s.",
            )
