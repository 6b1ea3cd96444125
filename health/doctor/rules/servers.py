"""HW31x: time-outs of other servers and of proxies in the pod, where they show in a command or an environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import BREAKS, NOTE, RISKS, Change, Found, Severity, rule
from ..model import Model
from ..place import Object
from ..servers import mounted_texts
from ..units import FOREVER, say, seconds, setting_seconds
from ..workloads import Container, heartbeat
from .gunicorn import option_change
from .ingress import Idle, controller, idle_found

#: Whose writes these are, if not the clients': a queue's, a database's; and Headwater's own, which is without progress.
_OTHERS = re.compile(
    r"(^|[-_.])(SSE|REDIS|DB|DATABASE|POSTGRES|PG|MYSQL|MONGO|KAFKA|NATS|AMQP|CACHE|S3|SMTP|LOG|UPSTREAM|BACKEND|CLIENT|WS|WEBSOCKET|TCP)[-_.]",
    re.IGNORECASE,
)


def _finite(value: float | None) -> bool:
    return value is not None and 0 < value < FOREVER


@rule("HW311", "write-timeout", BREAKS, 11)
def write_timeout(model: Model) -> Iterator[Found]:
    """A server, or a proxy before it, has a write time-out: it ends every answer at a fixed age, whatever is sent.

    Source: Go, net/http, Server.WriteTimeout: "the maximum duration before timing out writes of the response. It is
    reset whenever a new request's header is read"; Traefik, "EntryPoints", respondingTimeouts.writeTimeout: "the
    maximum duration before timing out writes of the response."
    """
    for container in model.containers:
        server = model.server(container)
        for name, option in server.options.items():
            limit = seconds(option.value)
            if not re.search(r"write-?_?timeout$", name, re.IGNORECASE) or _OTHERS.search(name) or not _finite(limit):
                continue
            if server.name in ("gunicorn", "uvicorn", "java", "node"):
                continue
            assert limit is not None
            yield Found(
                option.place,
                f"--{name} {option.value} ends every answer {say(limit)} after its request, whatever is sent and"
                " however many heartbeats it has: all streams are cut at that age",
                option_change(
                    option, "0s", "0: no limit. A write time-out counts from the request, so it ends every stream."
                ),
            )
        for name, value in container.env.items():
            if not re.search(r"WRITE_?TIMEOUT(_MS|_SECONDS|_SEC|_S)?$", name, re.IGNORECASE) or _OTHERS.search(name):
                continue
            env_limit = setting_seconds(name, value)
            if not _finite(env_limit) or server.name in ("gunicorn", "uvicorn", "java", "node"):
                continue
            assert env_limit is not None
            sure = server.name in ("native", "traefik", "caddy") or re.search(
                r"(HTTP|SERVER|WEB|API)_?(SERVER_)?WRITE", name, re.IGNORECASE
            )
            severity: Severity = BREAKS if sure else RISKS
            assumed = "" if server.name == "native" else " (assumed: it is what Go's net/http calls WriteTimeout)"
            yield Found(
                container.env_places[name],
                f"{name}={value} ends every answer {say(env_limit)} after its request, whatever is sent{assumed}",
                (
                    Change(
                        container.env_places[name],
                        "0" if value.strip().isdigit() else "0s",
                        "0: no limit; it would end every stream at that age.",
                    ),
                ),
                severity,
            )


@rule("HW312", "request-limit-of-the-server", BREAKS, 11)
def request_limit(model: Model) -> Iterator[Found]:
    """The server ends each request after a fixed time.

    Source: uWSGI, "Options", harakiri: kills a worker whose request takes longer; Daphne, --http-timeout: "How long to
    wait for worker before timing out HTTP connections"; Spring Boot, "Application Properties",
    spring.mvc.async.request-timeout: "Amount of time before asynchronous request handling times out."
    """
    for container in model.containers:
        server = model.server(container)
        for program, name in (("uwsgi", "harakiri"), ("daphne", "http-timeout")):
            option = server.options.get(name)
            limit = seconds(option.value) if option else None
            if option is not None and server.name == program and _finite(limit):
                yield Found(
                    option.place,
                    f"--{name} {option.value}: {program} ends each request after {limit:g} s, and with it each stream",
                    option_change(option, "0", "0: no limit; a stream is one request.") if program == "uwsgi" else (),
                    advice="Leave it out; there is no limit by default.",
                )
        name = "SPRING_MVC_ASYNC_REQUEST_TIMEOUT"
        value = container.env.get(name)
        limit = seconds(value, 1e-3)
        if value is not None and _finite(limit):
            yield Found(
                container.env_places[name],
                f"{name}={value}: Spring ends each asynchronous answer (SseEmitter, StreamingResponseBody) after"
                f" {limit:g} s",
                (Change(container.env_places[name], "-1", "-1: no limit; it would end every stream at that age."),),
            )
        yield from _spring_files(model, container)


def _spring_files(model: Model, container: Container) -> Iterator[Found]:
    for place in mounted_texts(container, model.configs):
        if not re.search(r"application[\w-]*\.(ya?ml|properties)'?\]?$", place.field):
            continue
        found = re.search(r"(?:spring\.mvc\.async\.)?request-timeout\s*[:=]\s*(\S+)", place.text or "")
        if found and "async" in (place.text or "") and _finite(limit := seconds(found[1], 1e-3)):
            yield Found(
                place,
                f"spring.mvc.async.request-timeout {found[1]}: each asynchronous answer ends after {limit:g} s",
                advice="spring.mvc.async.request-timeout: -1",
            )


@rule("HW316", "server-ends-quiet-streams", BREAKS, 11)
def server_idle(model: Model) -> Iterator[Found]:
    """The server itself ends a connection that was silent for some seconds.

    Source: Spring Boot, "Application Properties", server.netty.idle-timeout: "Idle timeout of the Netty channel";
    server.jetty.connection-idle-timeout: "Time that the connection can be idle before it is closed."
    """
    for container in model.containers:
        for name in ("SERVER_NETTY_IDLE_TIMEOUT", "SERVER_JETTY_CONNECTION_IDLE_TIMEOUT"):
            limit = seconds(container.env.get(name), 1e-3)
            if limit:
                who = "Netty" if "NETTY" in name else "Jetty"
                yield from idle_found(
                    container.env_places[name], limit, False, heartbeat(container.env), Idle(who, "", 0, "s")
                )


_GO_FILE = re.compile(r"(?:server|http)\W[\s\S]{0,200}?\bwrite_?timeout[\"']?\s*[:=]\s*[\"']?(\w+)", re.IGNORECASE)


@rule("HW317", "write-timeout-in-a-file", BREAKS, 11)
def write_timeout_in_a_file(model: Model) -> Iterator[Found]:
    """A configuration file in a ConfigMap sets a write time-out: Caddy's, or what looks like a Go server's.

    Source: Caddy, "Global options", servers, timeouts, write: "how long to allow writes to a client"; Go, net/http,
    Server.WriteTimeout.
    """
    for container in model.containers:
        for place in mounted_texts(container, model.configs):
            text = place.text or ""
            caddy = re.search(r"timeouts\s*\{[^}]*\bwrite\s+(\w+)", text)
            other = re.search(
                r"(?:server|http)\W[\s\S]{0,200}?\bwrite_?timeout[\"']?\s*[:=]\s*[\"']?(\w+)", text, re.IGNORECASE
            )
            found = caddy or other
            limit = seconds(found[1]) if found else None
            if found is None or not _finite(limit) or "entryPoints" in text or limit is None:
                continue
            assumed = "" if caddy else " (assumed: it is what Go's net/http calls WriteTimeout)"
            yield Found(
                place,
                f"a write time-out of {found[1]} ends every answer {say(limit)} after its request, whatever"
                f" flows{assumed}",
                advice="Leave it out, or 0.",
                severity=BREAKS if caddy else RISKS,
            )


#: Seconds that these keep an idle connection, and the option that sets it.
_KEEP_ALIVE = {
    "gunicorn": (2.0, "keep-alive"),
    "uvicorn": (5.0, "timeout-keep-alive"),
    "hypercorn": (5.0, "keep-alive"),
    "node": (5.0, ""),
}


@rule("HW313", "keep-alive-shorter-than-the-load-balancers", RISKS, 4)
def keep_alive(model: Model) -> Iterator[Found]:
    """The server closes idle connections before the load balancer does, which then answers 502.

    Source: AWS, "Application Load Balancers", "Connection idle timeout": "we recommend that you configure the idle
    timeout of your application to be larger than the idle timeout configured for the load balancer"; Google Cloud,
    "Backend services overview", "HTTP keepalive timeout": 600 s, fixed; Node.js, http, server.keepAliveTimeout: 5 s.
    """
    for route in model.routes:
        if not route.carries or route.object.kind != "Ingress":
            continue
        theirs = _load_balancer(route.object)
        if theirs is None:
            continue
        for workload in model.behind(route):
            for container in workload.containers:
                server = model.server(container)
                if container in model.main_containers:
                    yield from _keep_alive_variable(container, theirs)
                if server.name not in _KEEP_ALIVE or container not in model.main_containers:
                    continue
                default, name = _KEEP_ALIVE[server.name]
                if not server.settled and name not in server.options:
                    continue
                ours = server.number(name, default) if name else default
                if server.name == "node" and any("KEEP" in key and "ALIVE" in key for key in container.env):
                    continue
                if ours is None or ours > theirs[1]:
                    continue
                option = server.options.get(name) if name else None
                yield Found(
                    option.place if option else server.place,
                    f"{server.name} closes an idle connection after {ours:g} s, {theirs[0]} keeps it for"
                    f" {theirs[1]:g} s: a request (a reconnecting stream, too) that is sent on it at that moment is"
                    " answered 502 by the load balancer"
                    + (" (assumed: the code leaves keepAliveTimeout alone)" if server.name == "node" else ""),
                    option_change(option, f"{theirs[1] + 15:g}", f"Above the load balancer's {theirs[1]:g} s."),
                    NOTE if server.name == "node" else RISKS,
                    advice=f"Set --{name} {theirs[1] + 15:g}."
                    if name
                    else f"server.keepAliveTimeout = {(theirs[1] + 15) * 1000:g}",
                )


def _keep_alive_variable(container: Container, theirs: tuple[str, float]) -> Iterator[Found]:
    """A variable that sets the server's idle time-out, whatever the server is."""
    for name, value in container.env.items():
        ours = setting_seconds(name, value) if re.search(r"KEEP_?ALIVE_?TIMEOUT", name, re.IGNORECASE) else None
        if ours is not None and 0 < ours <= theirs[1]:
            longer = theirs[1] + 15
            unit = 1000 if value.strip().isdigit() and float(value) != ours else 1
            yield Found(
                container.env_places[name],
                f"{name}={value}: the server closes an idle connection after {ours:g} s, {theirs[0]} keeps it for"
                f" {theirs[1]:g} s: a request that is sent on it at that moment is answered 502 by the load balancer",
                (
                    Change(
                        container.env_places[name], f"{longer * unit:g}", f"Above the load balancer's {theirs[1]:g} s."
                    ),
                )
                if value.strip().isdigit()
                else (),
            )


def _load_balancer(ingress: Object) -> tuple[str, float] | None:
    kind = controller(ingress)
    if kind == "alb":
        found = re.search(
            r"idle_timeout\.timeout_seconds=(\d+)",
            ingress.annotation("alb.ingress.kubernetes.io/load-balancer-attributes").text or "",
        )
        return "the ALB", float(found[1]) if found else 60.0
    return ("Google's load balancer", 600.0) if kind == "gce" else None


_MEMORY = re.compile(r"(^|[=:])(memory:(//)?|in-?memory|inmem|local|bolt://)", re.IGNORECASE)


@rule("HW314", "broadcast-within-one-process", NOTE, 6)
def broadcast_within_one_process(model: Model) -> Iterator[Found]:
    """Several processes, and a setting that says events are passed on within one. This is a question, not a claim.

    Source: Django Channels, "Channel Layers": in-memory layers "operate with each process as a separate layer";
    Mercure, "Transports": Bolt is for one instance.
    """
    for workload in model.streaming:
        for container in workload.containers:
            server = model.server(container)
            processes = max(workload.replicas, server.workers)
            if processes < 2:
                continue
            for name, value in container.env.items():
                if re.search(
                    r"(BROADCAST|CHANNEL_LAYER|EVENT_?BUS|TRANSPORT_URL|PUBSUB|PUB_SUB|BROKER|SSE_LOG|BACKPLANE|MESSAGE_QUEUE)",
                    name,
                ) and _MEMORY.search(value):
                    what = (
                        f"{workload.replicas} pods" if workload.replicas > 1 else f"{server.workers} worker processes"
                    )
                    yield Found(
                        container.env_places[name],
                        f"{name}={value} and {what}: does an event that one of them publishes reach the streams of"
                        " the others? In memory it does not",
                        advice="A broker or a log that all share (Redis, NATS, Kafka, PostgreSQL).",
                    )


@rule("HW315", "session-within-one-process", RISKS, 6)
def session_within_one_process(model: Model) -> Iterator[Found]:
    """MCP's SSE transport keeps the session in the process that has the stream, and there are several.

    Source: Model Context Protocol 2024-11-05, "Transports", "HTTP with SSE": the server "MUST send an endpoint event
    containing a URI for the client to use for sending messages"; the reference SDKs keep those sessions in memory.
    """
    for workload in model.streaming:
        for container in workload.containers:
            server = model.server(container)
            option = server.options.get("transport")
            value = option.value if option else container.env.get("MCP_TRANSPORT", container.env.get("TRANSPORT", ""))
            if value != "sse" or (workload.replicas < 2 and server.workers < 2):
                continue
            services = model.services_of(workload)
            if any(service.at("spec", "sessionAffinity").text == "ClientIP" for service in services) or any(
                route.object.annotation("nginx.ingress.kubernetes.io/affinity")
                or route.object.annotation("nginx.ingress.kubernetes.io/upstream-hash-by")
                for route in model.routes
                if workload in model.behind(route)
            ):
                continue
            yield Found(
                workload.replicas_place,
                f"{workload.replicas} pods and MCP's SSE transport: a client's POST must reach the process that holds"
                " its stream, and the Service sends it to any; (n - 1)/n ="
                f" {workload.replicas - 1}/{workload.replicas} of them fail",
                advice="Keep one client on one pod (affinity by session at the ingress), or use the Streamable HTTP"
                " transport without state.",
            )
