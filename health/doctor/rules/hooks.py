"""HW21x: preStop hooks that do not wait."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import images, shell
from ..finding import BREAKS, RISKS, Change, Found, Swap, rule
from ..model import Model
from ..workloads import Container


def hook_command(container: Container) -> list[str]:
    return [item.text or "" for item in container.hook.get("exec", "command").items()]


def hook_pause(container: Container) -> float:
    """Seconds that the hook waits, or would wait if it worked."""
    kubelets = container.hook.get("sleep", "seconds").number
    return kubelets if kubelets is not None else shell.pause(hook_command(container))


def broken_hook(container: Container) -> str:
    """Why the hook's command fails at once; "" if it works, or if that cannot be known."""
    command = hook_command(container)
    if not command:
        return ""
    why = shell.why_it_cannot_work(command)
    if why:
        return why
    image = images.read(container.image)
    where = "a distroless image" if image.base == "distroless" else f"{image.name}:{image.tag}"
    if image.has(shell.program(command[0])) is False:
        return f"no {command[0]} in {where}: FailedPreStopHook"
    found = shell.invocation(command)
    script = shell.Script(found.script) if found else None
    if script is None or not script.clear:
        return ""
    for number, each in enumerate(script.commands):
        if image.has(each.program) is False:
            sleeps = any(later.program == "sleep" for later in script.commands[number:])
            if each.after == "&&" or not (sleeps or script.pause):
                return f"no `{each.program}` in {where}: exit"
                " 127" + (", and nothing behind the && runs" if sleeps else "")
    return ""


@rule("HW211", "hook-that-fails", BREAKS, 9)
def hook_that_fails(model: Model) -> Iterator[Found]:
    """The preStop hook fails at once, so there is no pause before SIGTERM.

    Source: Kubernetes, "Container Lifecycle Hooks": a hook that fails is an event (FailedPreStopHook), and the
    container is ended; ExecAction: the command "is not run inside a shell".
    """
    for container in model.containers:
        why = broken_hook(container)
        if not why:
            continue
        pause = hook_pause(container) or _meant(hook_command(container)) or 5
        yield Found(
            container.hook.get("exec", "command"),
            f"{why}; there is no pause, and SIGTERM arrives while the Service still sends clients",
            (
                Change(
                    container.hook.get("exec"),
                    Swap("sleep", {"seconds": int(pause)}),
                    "The kubelet itself waits; the image needs nothing (Kubernetes 1.30 and newer).",
                ),
            ),
        )


def _meant(command: list[str]) -> int:
    found = re.search(r"sleep\W+(\d+)", " ".join(command))
    return int(found[1]) if found else 0


_STOPS = re.compile(
    r"nginx\s+-s\s+(quit|stop)|\bkill(all)?\b|\bpkill\b|quitquitquit|/(shutdown|stop|quit|actuator/shutdown)\b"
    r"|apachectl\s+.*stop|httpd\s+-k|\bsupervisorctl\s+stop|gunicornc?\s+.*shutdown"
)


@rule("HW212", "hook-that-stops-the-server", RISKS, 9)
def hook_that_stops_the_server(model: Model) -> Iterator[Found]:
    """The preStop hook stops the server before anybody has stopped to send clients.

    Source: Kubernetes, "Pod Lifecycle", "Termination of Pods": the hook runs at the same time as the endpoint is taken
    out; nginx, "Controlling nginx": quit closes the listening sockets first.
    """
    for container in model.containers:
        command = hook_command(container)
        get = container.hook.get("httpGet", "path")
        place = container.hook.get("exec", "command") if command else get
        text = " ".join(command) or get.text or ""
        found = _STOPS.search(text)
        if found is None or broken_hook(container):
            continue
        before = text[: found.start()]
        slept = re.search(r"\bsleep\s+(\d+)", before)
        if slept and int(slept[1]) >= 3:
            continue
        yield Found(
            place,
            f"`{found[0]}` stops the server as the first thing: its listener closes while nodes and proxies send"
            " clients for some seconds more (connection refused, 502); SIGTERM would have done the same",
            advice="Sleep first: `sleep 5 && …`, or leave the stop to SIGTERM.",
        )
