"""HW20x: from SIGTERM to SIGKILL."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import images, shell
from ..finding import BREAKS, RISKS, Change, Found, Severity, rule
from ..graceful import Graceful, drains_itself, graceful
from ..model import Model
from ..units import FOREVER
from ..workloads import Container, Workload
from .hooks import broken_hook, hook_pause


def _longest(model: Model, workload: Workload) -> tuple[Container, float, Graceful | None] | None:
    """The container that needs the most time: its hook's pause and its server's graceful time."""
    found = []
    for container in workload.containers:
        if images.read(container.image).backend:
            continue
        known = graceful(model.server(container))
        found.append((container, hook_pause(container), known))
    return max(found, key=lambda each: each[1] + (each[2].seconds if each[2] else 0), default=None)


@rule("HW201", "grace-period-too-short", BREAKS, 9)
def grace_period_too_short(model: Model) -> Iterator[Found]:
    """The preStop hook and the server's own graceful time do not fit into terminationGracePeriodSeconds.

    Source: Kubernetes, "Pod Lifecycle", "Termination of Pods": the grace period covers the preStop hook, too; if the
    hook is still running at its end, the kubelet requests "a small, one-off grace period extension of 2 seconds", then
    SIGKILL.
    """
    for workload in model.streaming:
        longest = _longest(model, workload)
        if longest is None:
            continue
        container, pause, known = longest
        grace = workload.grace
        said = f"terminationGracePeriodSeconds {grace}" + ("" if workload.grace_place else " (the default)")
        if grace == 0:
            yield Found(
                workload.grace_place,
                "0 s: the pod is killed before it can act on SIGTERM, and every stream is torn at each rollout",
                (Change(workload.grace_place, 30, "Time to end streams."),),
            )
            continue
        if pause == FOREVER:
            yield Found(
                workload.grace_place,
                f"the hook never ends, so it takes all of {said}: SIGTERM arrives with the kubelet's 2 extra seconds,"
                " then SIGKILL (exit 137) tears all streams",
                advice="Let the hook sleep for 5 to 15 s.",
            )
            continue
        if pause and pause >= grace:
            rest = known.seconds if known and known.seconds != FOREVER else 30
            yield Found(
                workload.grace_place,
                f"the hook's {pause:g} s are the whole of {said}: after SIGTERM only the kubelet's 2 extra seconds"
                " are left, then SIGKILL (exit 137) tears all streams",
                (_lengthen(workload, pause + rest, f"preStop {pause:g} + {rest:g} to end streams"),),
            )
            continue
        if known is None or known.seconds == FOREVER:
            continue
        need = pause + known.seconds
        if need < grace or (need == grace and not known.place and not pause):
            continue
        terms = (f"preStop {pause:g} + " if pause else "") + known.what
        broken = bool(broken_hook(container))
        severity: Severity = BREAKS if need > grace and not broken else RISKS
        late = (
            f"SIGKILL follows {grace - pause:g} s after SIGTERM and tears what is open"
            if need > grace
            else "SIGKILL follows in the same second in which it would have ended"
        )
        sum_of = f"{terms} = {need:g} s" if pause else f"{terms} s"
        repaired = " once the hook works" if broken else ""
        against = f"> {grace} s, {said}" if need > grace else f"is as long as {said}"
        yield Found(
            workload.grace_place,
            f"{sum_of}{repaired} {against}: {late}",
            (_lengthen(workload, need, terms),),
            severity,
        )


def _lengthen(workload: Workload, need: float, terms: str) -> Change:
    value = int(-(-(need + 5) // 5) * 5)
    return Change(workload.grace_place, value, f"{terms}, and some seconds for the exit.")


@rule("HW202", "shell-is-process-1", BREAKS, 9)
def shell_is_process_1(model: Model) -> Iterator[Found]:
    """A shell stays process 1 in front of the server, and passes no signal on.

    Source: POSIX.1-2024 sh; pid_namespaces(7): a signal without a handler is not delivered to process 1 of a PID
    namespace. Tried: dash 0.5.12 never replaces itself by its last command; bash 5.2 does; BusyBox ash 1.35 does unless
    the script ends in a new line.
    """
    for container in model.containers:
        texts = [word.text for word in container.words]
        found = shell.invocation(texts)
        if found is None or container.workload.pod.get("shareProcessNamespace").true:
            continue
        script = shell.Script(found.script)
        if not script.commands or script.traps or not script.clear:
            continue
        if any(command.exec and command.before != "||" for command in script.commands):
            continue
        last = script.last
        if last.program in ("wait", "sleep", "tail", "true", "exit"):
            continue
        image = images.read(container.image)
        kind = found.shell if found.shell in ("bash", "dash", "ash") else image.sh
        if kind == "none":
            continue
        in_place = last.after != "&" and last.before != "|"
        if kind == "bash" and in_place:
            continue
        if kind == "ash" and in_place and not found.script.endswith("\n"):
            continue
        names = {
            "dash": "/bin/sh (dash)",
            "ash": "/bin/sh (BusyBox ash, because the script ends in a new line)",
            "bash": "bash",
        }
        who = names.get(kind, f"{found.shell} (unless it is bash in this image)")
        word = container.words[found.index]
        changes: tuple[Change, ...] = ()
        repaired = _with_exec(found.script, last)
        if repaired is not None:
            changes = (
                Change(
                    word.list.get(word.index), repaired, "exec: the server becomes process 1 and gets SIGTERM itself."
                ),
            )
        yield Found(
            word.list,
            f"without `exec` {who} stays process 1: it passes no SIGTERM on and, being process 1, ignores it;"
            f" `{last.program}` never gets it, and SIGKILL tears all streams after"
            f" {container.workload.grace} s (exit 137) at every rollout",
            changes,
            BREAKS if kind else RISKS,
            "" if changes else "Put `exec` before the server's command.",
        )


def _with_exec(text: str, last: shell.Command) -> str | None:
    """The script with `exec` before its last command; None where that command cannot be found again in the text."""
    if last.after == "&" or last.before == "|" or not last.proper:
        return None
    first = re.escape(last.words[0])
    found = list(re.finditer(rf"(?m)(?:^|(?<=[;&|]))([ \t]*){first}(?=\s|$)", text))
    if not found or any(word.startswith("$(") for word in last.words[:1]):
        return None
    at = found[-1]
    start = at.end() - len(at[0].lstrip(" \t"))
    assignments = re.match(r"(?:\w+=\S*\s+)*", text[start:])
    start += assignments.end() if assignments else 0
    return f"{text[:start]}exec {text[start:]}"


@rule("HW203", "package-manager-is-process-1", RISKS, 9)
def package_manager_is_process_1(model: Model) -> Iterator[Found]:
    """npm, yarn or pnpm starts the server and keeps SIGTERM from it.

    Source: nodejs/docker-node, docs/BestPractices.md, "CMD": starting node itself "causes exit signals such as SIGTERM
    and SIGINT to be received by the Node.js process instead of npm swallowing them."
    """
    for container in model.containers:
        server = model.server(container)
        if server.name in ("npm", "yarn", "pnpm") and container.words:
            if shell.invocation([word.text for word in container.words]) and not container.words[
                -1
            ].text.strip().startswith("exec"):
                continue  # HW202 says it
            yield Found(
                container.command_place,
                f"{server.name} is process 1 and the server its grandchild: SIGTERM may never reach it, so that"
                f" streams are torn by SIGKILL after {container.workload.grace} s",
                advice='Start node itself: `["node", "server.js"]`.',
            )


#: These close their listener as soon as SIGTERM arrives.
_CLOSE_AT_ONCE = {
    "gunicorn": "gunicorn",
    "uvicorn": "uvicorn",
    "hypercorn": "hypercorn",
    "waitress": "waitress",
    "puma": "puma",
}


@rule("HW204", "no-pause-before-sigterm", RISKS, 9)
def no_pause_before_sigterm(model: Model) -> Iterator[Found]:
    """The server closes its listener at SIGTERM, while the Service still sends clients.

    Source: Kubernetes, "Pod Lifecycle", "Termination of Pods": the endpoint's removal and SIGTERM happen at the same
    time; gunicorn, "Signal Handling", TERM: graceful shutdown, which stops accepting; uvicorn, "Server behavior".
    """
    for container in model.main_containers:
        server = model.server(container)
        if server.name not in _CLOSE_AT_ONCE or container.hook or drains_itself(server) or "kill" in container.name:
            continue
        known = graceful(server)
        if container.workload.grace < 30 and known is None:
            continue  # HW205 says it, and repairs both
        rest = known.seconds if known and known.seconds != FOREVER else 30
        need = 5 + rest
        changes = [
            Change(
                container.hook,
                {"sleep": {"seconds": 5}},
                "The pod still serves while endpoints are removed everywhere (Kubernetes 1.30 and newer).",
            )
        ]
        if need >= container.workload.grace:
            changes.append(_lengthen(container.workload, need, f"preStop 5 + {rest:g} to end streams"))
        yield Found(
            container.hook,
            f"missing: {server.name} closes its listener at SIGTERM, while nodes and proxies send clients for some"
            " seconds more: new clients, and those that were cut, get connection refused or 502",
            tuple(changes),
        )


@rule("HW205", "short-grace-without-a-pause", RISKS, 9)
def short_grace(model: Model) -> Iterator[Found]:
    """Less than the default grace period, no preStop hook, and nothing that says the app needs less.

    Source: Kubernetes, "Pod Lifecycle", "Termination of Pods": SIGKILL at the end of terminationGracePeriodSeconds
    (30 by default).
    """
    for workload in model.streaming:
        if not 0 < workload.grace < 30:
            continue
        mains = [each for each in workload.containers if not each.sidecar and not images.read(each.image).backend]
        if any(each.hook or graceful(model.server(each)) or not each.env_known for each in mains):
            continue
        grace = workload.grace
        first = next(iter(mains), None)
        changes = [
            Change(workload.grace_place, 45, "5 to pause, and what the longest answer takes; 30 is the default.")
        ]
        if first is not None:
            changes.insert(
                0,
                Change(
                    first.hook,
                    {"sleep": {"seconds": 5}},
                    "The pod still serves while endpoints are removed everywhere (Kubernetes 1.30 and newer).",
                ),
            )
        yield Found(
            workload.grace_place,
            f"{grace} s and no preStop hook: at every rollout what is still being sent is torn {grace} s after"
            " SIGTERM, some of which the Service spends on sending clients here",
            tuple(changes),
        )


@rule("HW206", "no-limit-for-the-end", RISKS, 9)
def no_limit_for_the_end(model: Model) -> Iterator[Found]:
    """Uvicorn waits for open streams without a limit, so SIGKILL ends them.

    Source: Uvicorn, "Settings", --timeout-graceful-shutdown: "Maximum number of seconds to wait for graceful shutdown.
    After this timeout, the server will start terminating requests." Default None.
    """
    for container in model.containers:
        server = model.server(container)
        if (
            server.name != "uvicorn"
            or "timeout-graceful-shutdown" in server.options
            or not server.settled
            or not container.words
        ):
            continue
        if server.app in ("run", "dev", "") or drains_itself(server):
            continue  # the fastapi command has no such option
        limit = max(5, container.workload.grace - int(hook_pause(container)) - 10)
        place = server.place
        changes: tuple[Change, ...] = ()
        if shell.invocation([word.text for word in container.words]) is None and place:
            changes = (
                Change(
                    place,
                    [*(item.text for item in place.items()), "--timeout-graceful-shutdown", str(limit)],
                    f"Streams never end on their own; {limit} s fit into the grace period.",
                ),
            )
        yield Found(
            place,
            "no --timeout-graceful-shutdown: after SIGTERM uvicorn waits for open streams without a limit, unless"
            f" the app ends them, and SIGKILL tears them after {container.workload.grace} s (exit 137)",
            changes,
            advice="" if changes else f"Add --timeout-graceful-shutdown {limit}.",
        )
