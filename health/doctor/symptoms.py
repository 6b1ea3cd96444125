"""Which failure kubectl's output looks like, and what to check next.

Reads `kubectl describe pod`, `get events`, `get pod -o yaml` and `logs --previous`, in any mixture. The wordings are
the kubelet's (pkg/kubelet/prober/prober.go, pkg/kubelet/kuberuntime, pkg/kubelet/events), the container runtimes' and
the servers'.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .errors import CannotRun
from .finding import BREAKS, NOTE, RISKS, SECTIONS, Rule, Severity
from .render.report import Entry, Report

#: Bytes of a text. Logs may be long; what matters is at their end.
MAX_BYTES = 16 * 2**20

Symptom = tuple[Severity, str, str]  # severity, what it looks like, what to check next

SYMPTOMS: list[Rule] = []


def _enter(id: str, name: str, severity: Severity, section: int) -> Callable[[Any], Any]:
    def enter(check: Any) -> Any:
        SYMPTOMS.append(Rule(id, name, severity, SECTIONS[section], check))
        return check

    return enter


def examine_text(name: str, report: Report) -> None:
    """Read a text and report what it looks like. Raises CannotRun."""
    text = _read(name)
    for rule in SYMPTOMS:
        for severity, reason, ask in rule.check(text):
            report.entries.append(Entry(rule.id, rule.name, severity, reason, rule.link, f"next: {ask}"))
    report.entries.sort(key=lambda entry: -entry.severity)
    if not report.entries:
        report.notes.append(
            "no known symptom; give `kubectl describe pod POD`, `kubectl get events`, and `kubectl logs"
            " POD --previous`"
        )


def _read(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CannotRun(f"{name}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise CannotRun(f"{name}: more than {MAX_BYTES >> 20} MiB; give its last lines")
    if b"\0" in data:
        raise CannotRun(f"{name}: binary, not text")
    if not data.strip():
        raise CannotRun(f"{name}: empty")
    return data.decode("utf-8", "replace")


def _port(text: str) -> str:
    found = re.search(r'Get "https?://[^/"]*:(\d+)', text)
    return found[1] if found else "PORT"


@_enter("HW801", "probe-times-out", BREAKS, 1)
def times_out(text: str) -> Iterator[Symptom]:
    """Liveness waits for a head that does not arrive, and the container is restarted.

    Source: net/http: "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".
    """
    if re.search(r"Liveness probe failed: .*(Client\.Timeout exceeded while awaiting headers|i/o timeout)", text):
        yield (
            BREAKS,
            "the probe connects and no head comes: the pool that answers it is full of streams (no. 1), the event"
            " loop is blocked (no. 7), readers stall (no. 8), headers are slow (no. 10), or everybody has reconnected"
            " at once (no. 13)",
            "`kubectl exec POD -- cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 01 '`: as many as worker_connections"
            " (or threads) is no. 1 or no. 10; few is no. 7: `py-spy dump`. Only since a restart or a rollout: no."
            " 13",
        )


@_enter("HW802", "probe-reads-a-stream", BREAKS, 2)
def reads_a_stream(text: str) -> Iterator[Symptom]:
    """A probe got a head, and the body did not end.

    Source: net/http: "(Client.Timeout or context cancellation while reading body)"; the prober discards the result.
    """
    if re.search(r"while reading body", text):
        yield (
            BREAKS,
            "a probe got a head and waits for the end of a body: it is aimed at a stream, and counts neither way",
            "`kubectl get pod POD -o jsonpath='{.spec.containers[*].readinessProbe.httpGet.path}'`, then `curl -m 1`"
            " that path",
        )


@_enter("HW803", "never-listened", BREAKS, 3)
def never_listened(text: str) -> Iterator[Symptom]:
    """Liveness or startup is refused, and the container is killed: the start takes longer than the probe waits.

    Source: net.Dialer: "connect: connection refused"; pkg/kubelet/kuberuntime: "failed startup probe, will be
    restarted".
    """
    refused = re.search(r"(Liveness|Startup) probe failed: .*connect: connection refused", text)
    killed = re.search(r"failed startup probe, will be restarted", text)
    if refused or killed:
        port = _port(text)
        yield (
            BREAKS,
            "nothing listens where the probe asks, and the container is killed for it: the start takes longer than"
            " the probe waits, or the server listens elsewhere (another port, or 127.0.0.1)",
            "`kubectl logs POD --previous`: does it end in the middle of the start? `kubectl exec POD -- cat"
            f" /proc/net/tcp`: is {port} there, and not on 0100007F (loopback)?",
        )


@_enter("HW804", "probe-gets-an-error-status", RISKS, 12)
def error_status(text: str) -> Iterator[Symptom]:
    """A probe is answered with an error: a dependency is down, or the route does not exist.

    Source: pkg/probe/http: "HTTP probe failed with statuscode: …".
    """
    found = re.search(r"(Liveness|Readiness|Startup) probe failed: HTTP probe failed with statuscode: (\d+)", text)
    if found is None:
        return
    kind, status = found[1], int(found[2])
    if status in (404, 405):
        yield (
            BREAKS,
            f"{kind} gets {status}: there is no such route, or not for GET",
            "`curl -i` the probe's path at the pod",
        )
    elif status in (401, 403, 429):
        what = (
            "a rate limit counts the kubelet, whose requests come from one address"
            if status == 429
            else "the route wants a login"
        )
        yield BREAKS, f"{kind} gets {status}: {what}", "exempt the probe's route"
    else:
        yield (
            BREAKS if kind == "Liveness" else RISKS,
            f"{kind} gets {status}: it asks for something outside of the process, or the app says that it is not ready",
            "`kubectl get pods`: have all of them restarted equally often? Then it is what they share. `curl` the"
            " route: does its answer name a check?",
        )


@_enter("HW805", "killed-at-the-end-of-the-grace-period", RISKS, 9)
def killed(text: str) -> Iterator[Symptom]:
    """Exit code 137, not by the memory limit: SIGKILL after the grace period, or after a failed liveness probe.

    Source: 128 + 9; Kubernetes, "Pod Lifecycle", "Termination of Pods".
    """
    if not re.search(r"(Exit Code:\s+137|exitCode: 137)", text) or re.search(r"OOMKilled", text):
        return
    if re.search(r"failed liveness probe|Liveness probe failed", text):
        yield (
            NOTE,
            "exit code 137 is SIGKILL: after the failed liveness probe the container had its grace period, and its"
            " streams did not end",
            "why liveness failed comes first",
        )
    else:
        yield (
            RISKS,
            "exit code 137 is SIGKILL: the grace period was over and streams were still open, or nobody heard"
            " SIGTERM (a shell as process 1)",
            "`kubectl exec POD -- cat /proc/1/cmdline`: is it the server, or `sh`? Does it end streams on SIGTERM?"
            " With a `Killing` event that names liveness it is that probe's doing",
        )


@_enter("HW806", "out-of-memory", BREAKS, 8)
def out_of_memory(text: str) -> Iterator[Symptom]:
    """OOMKilled: an unbounded queue per client, or a limit below what the pool needs.

    Source: Kubernetes, "Assign Memory Resources": Reason OOMKilled.
    """
    if re.search(r"OOMKilled", text):
        yield (
            BREAKS,
            "the memory limit was reached: mostly a queue for each client without a bound, and clients that do not"
            " read (no. 8)",
            "`kubectl exec POD -- ss -tno state established`: Send-Q above 0 that does not change; memory against"
            " the number of streams",
        )


@_enter("HW807", "probe-command-cannot-start", BREAKS, 3)
def cannot_start(text: str) -> Iterator[Symptom]:
    """An exec probe or a hook names a program that the image does not have.

    Source: runc: 'exec: "…": executable file not found in $PATH'; pkg/kubelet/events: FailedPreStopHook.
    """
    if found := re.search(r'exec: \\?"([^"\\]+)\\?": (executable file not found|stat [^:]+: no such file)', text):
        hook = "FailedPreStopHook" in text
        yield (
            BREAKS,
            f"`{found[1]}` is not in the image: "
            + (
                "the hook does not wait"
                if hook
                else "the probe is an error and counts neither way (readiness never passes, liveness never restarts)"
            ),
            "use an httpGet or tcpSocket probe, or preStop.sleep: they need nothing in the image",
        )
    elif "FailedPreStopHook" in text:
        yield (
            RISKS,
            "the preStop hook failed, so there was no pause before SIGTERM",
            "`kubectl get events`: what does FailedPreStopHook say?",
        )
    if re.search(r"(cannot create|can't create) /dev/tcp|/dev/tcp/[^:]*: No such file", text):
        yield BREAKS, "/dev/tcp is known to bash only, and only in redirections", "use a tcpSocket probe"


@_enter("HW808", "worker-time-out", BREAKS, 7)
def worker_timeout(text: str) -> Iterator[Symptom]:
    """gunicorn replaced a worker that was silent.

    Source: gunicorn/arbiter.py: "WORKER TIMEOUT (pid:%s)".
    """
    if "WORKER TIMEOUT" in text:
        yield (
            BREAKS,
            "gunicorn killed a worker that did not answer for `timeout` seconds, with all of its streams: with sync"
            " workers each stream does that; with gevent something blocks the event loop",
            "`ps` or the command line: which worker class? With gevent: `py-spy dump --pid PID` while it happens",
        )


@_enter("HW809", "connections-break", RISKS, 4)
def connections_break(text: str) -> Iterator[Symptom]:
    """Occasional EOF or reset: a kept connection was closed just as a request arrived.

    Source: net/http: "EOF", "connection reset by peer"; docs/failure-modes.md no. 4.
    """
    if re.search(r'probe failed: Get "[^"]*": (EOF|.*connection reset by peer)', text):
        yield (
            RISKS,
            "the connection was closed while the probe's request was on its way: the server ended (then this is its"
            " restart), or a proxy in between keeps connections longer than the server",
            "is there a sidecar? Compare its idle time-out with the server's",
        )


@_enter("HW810", "proxy-ended-the-stream", RISKS, 11)
def proxy_ended(text: str) -> Iterator[Symptom]:
    """A proxy's log says that it ended a stream, or that the server did.

    Source: nginx: "upstream timed out (110: Connection timed out) while reading upstream"; Envoy, "Response flags": UT,
    SI, DPE.
    """
    if re.search(r"upstream timed out .*while (reading upstream|reading response)", text):
        yield (
            RISKS,
            "nginx ended a stream that was silent for proxy_read_timeout (60 s)",
            "a heartbeat each 15 s; proxy_read_timeout 75s",
        )
    if re.search(r"upstream prematurely closed connection", text):
        yield (
            RISKS,
            "the server ended a stream without its last chunk: it was killed, or has a write time-out",
            "the pod's events at that time",
        )


@_enter("HW811", "back-off", NOTE, 3)
def back_off(text: str) -> Iterator[Symptom]:
    """CrashLoopBackOff is the pause between two starts, never the cause.

    Source: Kubernetes, "Pod Lifecycle", "Container restart policy": 10 s, 20 s, 40 s, up to 5 minutes.
    """
    if re.search(r"CrashLoopBackOff|Back-off restarting failed container", text):
        exit_code = re.search(r"(?:Exit Code:\s+|exitCode: )(\d+)", text)
        said = f"; the container ended with {exit_code[1]}" if exit_code else ""
        yield (
            NOTE,
            f"the kubelet waits before it starts the container again (10 s, doubled up to 5 minutes){said}: why it"
            " ended is in the container before",
            "`kubectl logs POD --previous`, and `Last State` in `kubectl describe pod POD`",
        )


@_enter("HW812", "eviction-blocked", RISKS, 9)
def eviction_blocked(text: str) -> Iterator[Symptom]:
    """A node's drain waits for a disruption budget.

    Source: Kubernetes API, Eviction: "Cannot evict pod as it would violate the pod's disruption budget."
    """
    if "violate the pod's disruption budget" in text:
        yield (
            RISKS,
            "a PodDisruptionBudget allows no eviction now: the node's drain waits",
            "`kubectl get pdb`: ALLOWED DISRUPTIONS 0? minAvailable equal to the replicas never allows one",
        )
