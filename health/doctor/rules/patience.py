"""HW12x: how long probes wait, and what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import images
from ..finding import NOTE, RISKS, Change, Found, Severity, rule
from ..model import Model
from ..units import say
from ..workloads import LIVENESS, READINESS, STARTUP, Container
from .exec_probes import cannot_fail, known_fault
from .pools import pool_shares_port
from .probes import aims_at_stream, liveness_is_first, probes_of, reads_a_stream, typed

#: A start may take this long on a cold node: an image's first read, a throttled CPU, a dependency that is slow.
START_BUDGET = 60

_SLOW = re.compile(
    r"\b(alembic|migrate|flyway|liquibase|prisma|db:migrate|db:prepare|collectstatic|"
    r"npm (ci|install|run build)|yarn install|pip install|wait-for[\w-]*|download|warm-?up|"
    r"vllm|ollama|torchserve|text-generation-launcher|tritonserver)\b"
)


@rule("HW121", "timeout-not-below-period", RISKS, 7)
def timeout_not_below_period(model: Model) -> Iterator[Found]:
    """A probe may wait as long as, or longer than, its period.

    Source: kubernetes/kubernetes pkg/kubelet/prober/worker.go: a probe that is still running when the next is due
    delays it, so tries follow each other without a pause.
    """
    for _, probe in probes_of(model):
        if probe.timeout < probe.period or not probe.action or cannot_fail(probe):
            continue
        where = probe.place.get("timeoutSeconds")
        below = max(1, probe.period - 1)
        late, due = probe.failures * probe.timeout, probe.failures * probe.period
        longer = (
            f", and it takes {probe.failures} × {probe.timeout} = {late} s instead of {due} s until it has failed"
            if late > due
            else ""
        )
        changes = (
            (Change(where, below, f"Below the period of {probe.period} s, so that probes do not pile up."),)
            if below < probe.timeout
            else (
                Change(
                    probe.place.get("periodSeconds"),
                    probe.timeout + 1,
                    f"Above the time-out of {probe.timeout} s, so that probes do not pile up.",
                ),
            )
        )
        yield Found(
            where,
            f"timeoutSeconds {probe.timeout} is not below periodSeconds {probe.period}: when answers are slow, one"
            f" try follows the other without a pause, the abandoned ones still being served{longer}",
            changes,
        )


@rule("HW122", "impatient-liveness", RISKS, 7)
def impatient_liveness(model: Model) -> Iterator[Found]:
    """Liveness restarts a pod that was busy for some seconds.

    Source: docs/failure-modes.md no. 7; Kubernetes, "Liveness, Readiness, and Startup Probes": "Incorrect
    implementation of liveness probes can lead to cascading failures."; gunicorn, "Settings", timeout: 30 s until a
    stuck worker is replaced.
    """
    for container in model.containers:
        probe = container.probes.get(LIVENESS)
        if probe is None or not probe.action or probe.action == "tcp" or probe.stall >= 30:
            continue
        if liveness_is_first(model, container):
            continue  # HW103 says it
        if pool_shares_port(model, container, probe) or aims_at_stream(model, probe.path, probe.place.get("httpGet")):
            continue
        if known_fault(container, probe) or reads_a_stream(model, probe)[1]:
            continue
        severity: Severity = RISKS if probe.stall < 20 or probe.timeout <= 1 else NOTE
        timeout = min(5, max(1, probe.period - 1))
        failures = max(probe.failures, -(-60 // probe.period))
        why = f"{failures} × {probe.period} s: a loop that is busy for some seconds must not cost every stream."
        changes = [Change(probe.place.get("failureThreshold"), failures, why)]
        if probe.timeout < timeout:
            changes.append(Change(probe.place.get("timeoutSeconds"), timeout, "A late answer is still an answer."))
        yield Found(
            probe.place,
            f"{probe.failures} tries, one each {probe.period} s, with {probe.timeout} s to answer: a process that is"
            f" busy for ({probe.failures} - 1) × {probe.period} + {probe.timeout} = {probe.stall} s (a report, a"
            " garbage collection, a throttled CPU) is killed, and all streams of the pod with it",
            tuple(changes),
            severity,
        )


@rule("HW123", "no-readiness", RISKS, 9)
def no_readiness(model: Model) -> Iterator[Found]:
    """No container of the pod has a readiness probe.

    Source: Kubernetes, "Pod Lifecycle", "Container probes": "If a container does not provide a readiness probe, the
    default state is Success."
    """
    for workload in model.streaming:
        mains = [each for each in model.main_containers if each.workload is workload]
        if not mains or any(READINESS in each.probes for each in workload.containers):
            continue
        container = mains[0]
        started = "once the startup probe has passed" if STARTUP in container.probes else "as soon as its process runs"
        changes: tuple[Change, ...] = ()
        basis = container.probes.get(STARTUP) or container.probes.get(LIVENESS)
        why = "Decides about new clients only; open streams stay."
        if (
            basis is not None
            and basis.action == "http"
            and not aims_at_stream(model, basis.path, basis.place.get("httpGet"))
        ):
            port: object = int(basis.port) if basis.port.isdigit() else basis.port
            ask: dict[str, object] = {"httpGet": {"path": basis.path, "port": port}}
        elif container.ports:
            name = next(iter(container.ports))
            ask = {"tcpSocket": {"port": int(name) if name.isdigit() else name}}
        else:
            ask = {}
        if ask:
            changes = (
                Change(
                    container.place.get(READINESS),
                    {**ask, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2},
                    why,
                ),
            )
        yield Found(
            container.place.get(READINESS),
            f"missing: the pod gets new streams {started}, whatever its state, and cannot be left out except by a"
            " restart",
            changes,
        )


def _interpreted(model: Model, container: Container) -> str:
    """Why a start may be slow; "" if nothing tells."""
    server = model.server(container)
    if server.name == "java":
        return "a JVM that loads its classes"
    if server.name in ("gunicorn", "uvicorn", "hypercorn", "daphne", "uwsgi", "granian", "waitress", "puma", "flask"):
        return f"{server.name} that imports its app"
    return ""


def slow_start(container: Container) -> str:
    """What the container does before it serves, as its command tells; "" if nothing."""
    text = " ".join(word.text for word in container.words)
    found = _SLOW.search(text)
    if found:
        return f"runs `{found[0]}` before it listens"
    name = images.read(container.image).name
    if re.search(r"(vllm|ollama|text-generation-inference|tritonserver|torchserve)", name):
        return "loads a model before it serves"
    return ""


@rule("HW124", "no-startup-probe", RISKS, 3)
def no_startup_probe(model: Model) -> Iterator[Found]:
    """No startup probe, and liveness gives up soon after the start.

    Source: Kubernetes, "Configure Probes", "Protect slow starting containers with startup probes": it "disables
    liveness and readiness checks until it succeeds"; docs/failure-modes.md no. 3.
    """
    for container in model.containers:
        probe = container.probes.get(LIVENESS)
        if probe is None or STARTUP in container.probes or not probe.action:
            continue
        slow, kind = slow_start(container), _interpreted(model, container)
        budget = probe.patience
        if budget >= START_BUDGET and not (slow and budget < 180):
            continue
        if probe.action == "tcp" and not slow:
            continue  # the listener is there early, or not at all
        severity: Severity = RISKS if slow or (kind and budget <= 30) else NOTE
        because = (
            slow
            and f"the container {slow}"
            or kind
            and f"this is {kind}"
            or "nothing here says how long the start takes"
        )
        ask = probe.place.value
        asked = {key: ask[key] for key in ("httpGet", "tcpSocket", "exec", "grpc") if key in ask}
        faulty = known_fault(container, probe) or reads_a_stream(model, probe)[1]
        if faulty or aims_at_stream(model, probe.path, probe.place.get("httpGet")):
            asked = {}
        if pool_shares_port(model, container, probe) and model.server(container).name == "gunicorn":
            # An HTTP probe would wait behind clients that come back; gunicorn listens before its workers have loaded.
            asked = {"tcpSocket": {"port": asked["httpGet"]["port"]}} if "httpGet" in asked else asked
        change = (
            Change(
                container.place.get(STARTUP),
                {**typed(asked), "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 150},
                "Until it has passed, liveness is not asked: 150 × 2 s = 300 s for the start.",
            ),
        )
        yield Found(
            container.place.get(STARTUP),
            f"missing, and {because}: liveness gives up {probe.initial} + {probe.failures} × {probe.period} ="
            f" {budget} s after the start, so a slower one is killed half-way and begins again",
            change if asked else (),
            severity,
        )


@rule("HW125", "short-start-budget", RISKS, 3)
def short_start_budget(model: Model) -> Iterator[Found]:
    """The startup probe allows less time than a cold node may take.

    Source: Kubernetes, "Configure Probes": the start has failureThreshold × periodSeconds.
    """
    for container in model.containers:
        probe = container.probes.get(STARTUP)
        if probe is None or not probe.action or aims_at_stream(model, probe.path, probe.place.get("httpGet")):
            continue
        if cannot_fail(probe):
            continue  # HW113
        slow = slow_start(container)
        budget = probe.patience
        if budget >= (180 if slow else START_BUDGET):
            continue
        severity: Severity = RISKS if slow or budget <= 30 else NOTE
        failures = -(-300 // probe.period)
        yield Found(
            probe.place.get("failureThreshold"),
            f"the whole start has {probe.initial} + {probe.failures} × {probe.period} = {budget} s"
            + (f" and the container {slow}" if slow else "")
            + f", with {probe.timeout} s for each answer: a cold node, a throttled CPU or a slow dependency, and the"
            " container is killed and begins again",
            (
                Change(
                    probe.place.get("failureThreshold"),
                    failures,
                    f"{failures} × {probe.period} s = {say(failures * probe.period)} for the start.",
                ),
            ),
            severity,
        )


#: Servers that answer probes from the one thread that serves everybody.
_LOOPS = frozenset({"gunicorn", "uvicorn", "hypercorn", "daphne", "node", "npm", "yarn", "pnpm", "puma"})


@rule("HW127", "one-second-for-readiness", NOTE, 7)
def one_second_for_readiness(model: Model) -> Iterator[Found]:
    """Readiness has one second, on the loop or in the pool that serves everybody.

    Source: Kubernetes, "Configure Probes", timeoutSeconds: "Defaults to 1 second. Minimum value is 1."
    """
    for container in model.containers:
        probe = container.probes.get(READINESS)
        if probe is None or probe.action != "http" or probe.timeout > 1 or model.apart(container, probe.port):
            continue
        if model.server(container).name not in _LOOPS or aims_at_stream(model, probe.path, probe.place.get("httpGet")):
            continue
        yield Found(
            probe.place.get("timeoutSeconds"),
            f"1 s to answer, on the port of the streams: {probe.failures} views or bursts of more than a second, and"
            " the pod gets no new clients, who all go to the others",
            (Change(probe.place.get("timeoutSeconds"), min(3, max(1, probe.period - 1)), "Below the period."),),
        )


@rule("HW126", "probes-within-a-rate-limit", RISKS, 12)
def probes_within_a_rate_limit(model: Model) -> Iterator[Found]:
    """The app limits requests, and the probes alone come near the limit.

    Source: Flask-Limiter, "Configuration", RATELIMIT_DEFAULT: limits "for all routes" unless exempt; the kubelet's
    requests come from one address, the node's.
    """
    for container in model.containers:
        probes = [probe for probe in container.probes.values() if probe.action == "http" and probe.kind != STARTUP]
        rate = sum(1 / probe.period for probe in probes)
        for name, value in container.env.items():
            limit = _per_second(name, value)
            if limit is None or not probes or rate < 0.5 * limit:
                continue
            terms = " + ".join(f"1/{probe.period}" for probe in probes)
            yield Found(
                container.env_places[name],
                f"{name} allows {value}; the probes alone make {terms} a second = {rate * 60:g} a minute from one"
                " address, the node's"
                + (": they are refused, and the pod with them" if rate > limit else ", which leaves little for others")
                + " (assumed: the limit counts the health route, by address)",
                advice="Exempt the health route from the limit.",
                severity=RISKS if rate > limit else NOTE,
            )


_RATE = re.compile(r"(\d+)\s*(?:r)?\s*(?:/|per\s*)\s*(\d+)?\s*(s|sec|second|m|min|minute|h|hour)s?\b", re.IGNORECASE)
_WINDOWS = {"s": 1, "m": 60, "h": 3600}


def _per_second(name: str, value: str) -> float | None:
    upper = name.upper()
    if not re.search(r"RATE_?LIMIT|THROTTLE|_RPM$|_RPS$", upper):
        return None
    if found := _RATE.search(value):
        return int(found[1]) / (int(found[2] or 1) * _WINDOWS[found[3][0].lower()])
    if value.isdigit():
        if re.search(r"PER_MIN|_RPM$", upper):
            return int(value) / 60
        if re.search(r"PER_SEC|_RPS$", upper):
            return float(value)
        if re.search(r"PER_HOUR", upper):
            return int(value) / 3600
    return None
