"""HW10x: what probes ask."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .. import shell
from ..finding import BREAKS, RISKS, Change, Found, Severity, Swap, rule
from ..model import Model
from ..place import Place
from ..traffic import HEALTH_WORDS, SURE_WORDS
from ..workloads import LIVENESS, READINESS, STARTUP, Container, Probe
from .pools import pool, pool_shares_port


def probes_of(model: Model) -> Iterator[tuple[Container, Probe]]:
    for container in model.containers:
        for probe in container.probes.values():
            yield container, probe


def aims_at_stream(model: Model, path: str, place: Place | None = None) -> str:
    """Why a path is taken for a stream; "" if it is not."""
    path = path.partition("?")[0].rstrip("/") or "/"
    segments = [segment.lower() for segment in path.split("/") if segment]
    if not segments or (HEALTH_WORDS.search(segments[-1]) and path != (model.stream_path or "").rstrip("/")):
        return ""
    if model.stream_path is not None and path == (model.stream_path.rstrip("/") or "/"):
        return f"{path} is the stream"
    for header in place.get("httpHeaders").items() if place else ():
        if (header.get("name").text or "").lower() == "accept" and "text/event-stream" in (
            header.get("value").text or ""
        ):
            return f"{path} is asked for text/event-stream"
    if model.stream_path is None and segments[-1] in SURE_WORDS:
        return f"{path} names a stream (assumed; --stream-path settles it)"
    return ""


@rule("HW101", "probe-on-a-stream", BREAKS, 2)
def probe_on_a_stream(model: Model) -> Iterator[Found]:
    """An HTTP probe asks a path that never ends.

    Source: kubernetes/kubernetes pkg/probe/http/http.go: the body is read up to 10 KB, and a time-out while reading is
    an error, not a failure; pkg/kubelet/prober/prober.go: an errored probe is tried three times and its result thrown
    away; pkg/kubelet/prober/worker.go: readiness and startup begin as failed, liveness as passed.
    """
    for container, probe in probes_of(model):
        if probe.action != "http":
            continue
        why = aims_at_stream(model, probe.path, probe.place.get("httpGet"))
        if not why:
            continue
        place = probe.place.get("httpGet", "path")
        cut = (
            f"after {probe.timeout} s of a body without an end the try is an error of the prober, which is discarded"
        )
        if probe.kind == READINESS:
            reason = f"{why}: {cut}. Readiness begins as failed and nothing changes it: the pod is never Ready"
            severity: Severity = BREAKS
        elif probe.kind == STARTUP:
            reason = f"{why}: {cut}. Startup never succeeds, so no other probe runs and the pod is never Ready"
            severity = BREAKS
        else:
            limit = probe.initial + probe.failures * probe.period
            reason = (
                f"{why}: {cut}. Liveness tests nothing and holds a stream for {probe.timeout} of every {probe.period}"
                f" s; if the head comes later than {probe.timeout} s, the container is restarted every {limit} s"
            )
            severity = RISKS
        yield Found(place, reason, _aim_elsewhere(model, container, probe), severity)


def _aim_elsewhere(model: Model, container: Container, probe: Probe) -> tuple[Change, ...]:
    """Another probe's path that does end, else a connection: the only question whose answer is known to exist."""
    why = "A stream never ends, so an HTTP probe of it cannot succeed."
    for other in container.probes.values():
        if other.action == "http" and not aims_at_stream(model, other.path, other.place.get("httpGet")):
            return (Change(probe.place.get("httpGet", "path"), other.path, why),)
    return replace_by_tcp(probe, why + " Better than a connection: a route that ends at once.")


def replace_by_tcp(probe: Probe, why: str) -> tuple[Change, ...]:
    port = probe.place.get("httpGet", "port")
    value = int(probe.port) if probe.port.isdigit() else probe.port
    return (Change(probe.place.get("httpGet"), Swap("tcpSocket", {"port": value}), why),) if port else ()


def typed(value: Any) -> Any:
    """Numbers as numbers again: a node keeps them as text."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        return int(value)
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return value


@rule("HW102", "command-reads-a-stream", BREAKS, 2)
def command_reads_a_stream(model: Model) -> Iterator[Found]:
    """An exec probe fetches a stream with curl or wget, which end only when the stream does.

    Source: curl(1), --max-time: "Maximum time in seconds that you allow each transfer to take", exit status 28;
    Kubernetes, "Configure Probes": a command that exceeds timeoutSeconds counts as failed (ExecProbeTimeout).
    """
    for _, probe in probes_of(model):
        program, why = reads_a_stream(model, probe)
        if why:
            after = f"after {probe.failures} × {probe.period} s the container is restarted"
            what = after if probe.kind == LIVENESS else "the pod is never Ready"
            yield Found(
                probe.place.get("exec", "command"),
                f"{why}, and `{program}` waits for its end: it is killed after {probe.timeout} s, which counts as"
                f" failed; {what}",
                advice="Read one line and end: `curl -sN -m 3 URL | grep -q -m1 .`, or ask a route that ends.",
            )


def reads_a_stream(model: Model, probe: Probe) -> tuple[str, str]:
    """The program by which a command waits for a stream's end, and why it is one; two empty strings if none does."""
    for words, alone in _fetches(probe.command) if probe.action == "exec" else ():
        urls = [word for word in words if re.match(r"https?://", word)]
        if not alone or not urls or any(re.fullmatch(r"-\w*I\w*|--head|--spider", word) for word in words):
            continue
        if why := aims_at_stream(model, re.sub(r"https?://[^/]*", "", urls[0]) or "/"):
            return words[0], why
    return "", ""


def _fetches(command: list[str]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """curl and wget in a command, and whether their own status is what counts."""
    found = shell.invocation(command)
    if found is None:
        if command and shell.program(command[0]) in ("curl", "wget"):
            yield tuple(command), True
        return
    for each in shell.Script(found.script).commands:
        if each.program in ("curl", "wget"):
            yield each.proper, each.after != "|"


@rule("HW103", "liveness-asks-what-readiness-asks", RISKS, 12)
def liveness_asks_what_readiness_asks(model: Model) -> Iterator[Found]:
    """Liveness asks the same as readiness and is no more patient; or asks something else and gives up first.

    Source: Kubernetes, "Liveness, Readiness, and Startup Probes": "A common pattern for liveness probes is to use the
    same low-cost HTTP endpoint as for readiness probes, but with a higher failureThreshold. This ensures that the pod
    is observed as not-ready for some period of time before it is hard killed."
    """
    for container in model.containers:
        liveness, readiness = container.probes.get(LIVENESS), container.probes.get(READINESS)
        if liveness is None or readiness is None or not liveness_is_first(model, container):
            continue
        ours, theirs = liveness.failures * liveness.period, readiness.failures * readiness.period
        failures = -(-max(60, 3 * theirs) // liveness.period)
        question = "asks what readiness asks and " if liveness.target == readiness.target else ""
        yield Found(
            liveness.place,
            f"it {question}gives up after {liveness.failures} × {liveness.period} = {ours} s, readiness after"
            f" {readiness.failures} × {readiness.period} = {theirs} s: a slow answer, or a dependency that is down,"
            " restarts the pod about when it is taken out of the Service, and cuts all of its streams",
            (
                Change(
                    liveness.place.get("failureThreshold"),
                    failures,
                    f"{failures} × {liveness.period} s: a pod is taken out of the Service long before it is restarted.",
                ),
            ),
        )


def liveness_is_first(model: Model, container: Container) -> bool:
    """True if a pod is restarted about when, or before, it is taken out of the Service."""
    liveness, readiness = container.probes.get(LIVENESS), container.probes.get(READINESS)
    if liveness is None or readiness is None or liveness.action in ("", "tcp"):
        return False  # a connection is refused by a process that is gone, and by nothing that passes
    if aims_at_stream(model, liveness.path, liveness.place.get("httpGet")) or pool_shares_port(
        model, container, liveness
    ):
        return False  # graver faults of the same probe: HW101 and HW104
    ours, theirs = liveness.failures * liveness.period, readiness.failures * readiness.period
    if liveness.target == readiness.target:
        return ours <= theirs or (ours <= 2 * theirs and ours < 60)
    return ours < theirs and liveness.action == readiness.action == "http"


@rule("HW104", "liveness-in-the-streams-pool", RISKS, 1)
def liveness_in_the_pool(model: Model) -> Iterator[Found]:
    """The liveness probe is answered by the pool of threads or connections that streams fill.

    Source: gunicorn, "Settings", worker_connections: "The maximum number of simultaneous clients", and threads; its
    arbiter replaces a worker that is silent for more than `timeout` seconds by itself. docs/failure-modes.md no. 1.
    """
    for container in model.containers:
        probe = container.probes.get(LIVENESS)
        if probe is None or not pool_shares_port(model, container, probe):
            continue
        if aims_at_stream(model, probe.path, probe.place.get("httpGet")):
            continue
        server = model.server(container)
        size = pool(model, container)
        said = f"{size[1]} = {size[0]} connections" if size else f"{server.name}'s pool (its size is not set here)"
        reason = (
            f"probes and streams share port {probe.port} and {said}: when every place is a stream, the probe"
            f" connects, waits {probe.timeout} s and fails; after {probe.failures} × {probe.period} s the container"
            " is restarted, all clients reconnect, and the pool is full again"
        )
        changes: tuple[Change, ...] = ()
        if server.name == "gunicorn" and server.number("timeout", 30.0):
            changes = replace_by_tcp(
                probe,
                "Streams can fill the pool that answers HTTP; the kernel accepts a connection even then. A stuck"
                " worker is replaced by gunicorn's own time-out.",
            )
        yield Found(
            probe.place,
            reason,
            changes,
            advice="Serve probes on a listener of their own that streams cannot reach.",
        )


#: Routes that are known to ask everything an app depends on, and those of the same framework that do not.
_AGGREGATES = {
    "/actuator/health": "/actuator/health/liveness",
    "/q/health": "/q/health/live",
    "/observe/health": "/observe/health/live",
    "/ht": "",
}

_DEPENDENCY = re.compile(
    r"(^|[/_-])(ready|readyz|readiness|db|database|redis|deep|full|detailed|dependenc\w*|deps|upstream|postgres|kafka)$"
    r"|\?.*\b(db|database|redis|deep|full|dependencies|deps)\b"
)


@rule("HW105", "liveness-asks-a-dependency", RISKS, 12)
def liveness_asks_a_dependency(model: Model) -> Iterator[Found]:
    """Liveness asks for more than the process itself: a readiness route, an aggregate, or another host.

    Source: Kubernetes, "Liveness, Readiness, and Startup Probes": "Liveness probes must be configured carefully to
    ensure that they truly indicate unrecoverable application failure"; Spring Boot, "Kubernetes Probes": the "Liveness"
    probe "should not depend on health checks for external systems"; SmallRye Health and Helidon have /live beside the
    aggregate; django-health-check's /ht/ asks database, cache and storage.
    """
    for container in model.containers:
        probe = container.probes.get(LIVENESS)
        if probe is None:
            continue
        readiness = container.probes.get(READINESS)
        same = readiness is not None and readiness.target == probe.target
        patient = readiness is None or probe.failures * probe.period > 2 * readiness.failures * readiness.period
        alone = _AGGREGATES.get(probe.path.rstrip("/")) if probe.action == "http" else None
        if same and not patient and alone is None:
            continue  # HW103
        if alone is not None:
            why = "Only the process's own state." if alone else ""
            yield Found(
                probe.place.get("httpGet", "path"),
                f"{probe.path} is the aggregate of every health indicator, databases and brokers included: when one"
                f" is down for {probe.failures} × {probe.period} s, all pods are restarted at once",
                (Change(probe.place.get("httpGet", "path"), alone, why),) if alone else (),
                advice="" if alone else "Aim liveness at a route that asks for nothing outside of the process.",
            )
        elif probe.action == "http" and _DEPENDENCY.search(probe.place.get("httpGet", "path").text or ""):
            yield Found(
                probe.place.get("httpGet", "path"),
                f"{probe.place.get('httpGet', 'path').text} says by its name that it asks for more than the process:"
                f" when what it depends on is down for {probe.failures} × {probe.period} s, every pod is restarted at"
                " the same moment",
                advice="Aim liveness at a route that asks for nothing outside of the process.",
            )
        elif probe.action == "exec" and (host := _other_host(probe.command)):
            yield Found(
                probe.place.get("exec", "command"),
                f"it asks {host}, which all pods share: its outage of {probe.failures} × {probe.period} s restarts"
                " every pod at the same moment, and cuts all streams",
                advice="Aim liveness at the process itself.",
            )


def _other_host(command: list[str]) -> str:
    """The host outside of the pod that a command asks; "" if there is none."""
    found = shell.invocation(command)
    commands = [each.proper for each in shell.Script(found.script).commands] if found else [tuple(command)]
    for words in commands:
        if not words:
            continue
        name = shell.program(words[0])
        hosts: list[str] = []
        if name in ("curl", "wget"):
            hosts = [match[1] for word in words if (match := re.match(r"https?://([^/:\s]+)", word))]
        elif name in ("nc", "ncat", "netcat"):
            hosts = [word for word in words[1:] if not word.startswith("-") and not word.isdigit()][:1]
        elif re.match(r"(python|node|ruby|php)", name) and len(words) > 2 and words[1] in ("-c", "-e", "-r"):
            hosts = re.findall(r"(?:host\s*=\s*['\"]|://(?:[^/@'\"]*@)?)([A-Za-z][\w.-]*)", words[2])
        elif name in ("redis-cli", "pg_isready", "mysqladmin", "psql", "mongosh"):
            hosts = [after for word, after in zip(words, words[1:], strict=False) if word in ("-h", "--host")]
        for host in hosts:
            if not re.match(r"(localhost|127\.|\[?::1|0\.0\.0\.0|\$)", host) and re.match(r"[A-Za-z]", host):
                return host
    return ""
