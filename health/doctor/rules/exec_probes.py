"""HW11x: probes that run a command in the container.

How one fails decides what follows (kubernetes/kubernetes pkg/probe/exec/exec.go): an exit status other than 0 is a
failure; a command that cannot be started is an error of the prober under containerd and CRI-O, which is discarded, so
readiness and startup stay failed and liveness stays passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import images, shell
from ..finding import BREAKS, NOTE, RISKS, Change, Found, Swap, rule
from ..model import Model
from ..place import Place
from ..units import cpu
from ..workloads import LIVENESS, STARTUP, Container, Probe
from .probes import probes_of


def exec_probes(model: Model) -> Iterator[tuple[Container, Probe, Place]]:
    for container, probe in probes_of(model):
        if probe.action == "exec" and probe.command:
            yield container, probe, probe.place.get("exec", "command")


def _fails(probe: Probe) -> str:
    """What follows when each try fails."""
    after = f"after {probe.failures} × {probe.period} s"
    if probe.kind == LIVENESS:
        return f"the container is killed {after}, again and again"
    return (
        "startup never succeeds and the container is killed " + after
        if probe.kind == STARTUP
        else "the pod is never Ready"
    )


def _errs(probe: Probe) -> str:
    """What follows when each try is an error of the prober."""
    if probe.kind == LIVENESS:
        return "the result is thrown away and liveness stays passed: a stuck pod is never restarted"
    return "the result is thrown away and the pod is never Ready"


def _instead(container: Container, probe: Probe, why: str) -> tuple[Change, ...]:
    """A probe that needs nothing of the image: another probe's route, or a connection to the first port."""
    others = [each for each in container.probes.values() if each is not probe and each.action in ("http", "tcp")]
    if others and others[0].action == "http" and probe.kind != LIVENESS:
        port: object = int(others[0].port) if others[0].port.isdigit() else others[0].port
        return (Change(probe.place.get("exec"), Swap("httpGet", {"path": others[0].path, "port": port}), why),)
    port_of_command = _asked_port(probe.command)
    ports = list(container.ports)
    if not ports and port_of_command is None:
        return ()
    target: object = port_of_command or (int(ports[0]) if ports[0].isdigit() else ports[0])
    return (Change(probe.place.get("exec"), Swap("tcpSocket", {"port": target}), why),)


def _asked_port(command: list[str]) -> int | None:
    text = " ".join(command)
    found = re.search(r"/dev/tcp/[^/\s]+/(\d+)", text) or re.search(r"(?:localhost|127\.0\.0\.1)[: ](\d+)", text)
    return int(found[1]) if found else None


@rule("HW111", "probe-by-dev-tcp", BREAKS, 3)
def probe_by_dev_tcp(model: Model) -> Iterator[Found]:
    """A probe uses /dev/tcp, which is no file: only bash knows it, and only in redirections.

    Source: Bash Reference Manual, "Redirections": /dev/tcp/host/port, "If host is a valid hostname or Internet address
    […] Bash attempts to open the corresponding TCP socket"; dash 0.5.12 and BusyBox 1.35: "can't create /dev/tcp/…".
    """
    for container, probe, place in exec_probes(model):
        why, certain = _dev_tcp(container, probe.command)
        if why:
            yield Found(
                place,
                f"{why}; {_fails(probe)}",
                _instead(container, probe, "The kubelet itself opens the connection; the image needs nothing."),
                BREAKS if certain else RISKS,
            )


def _dev_tcp(container: Container, command: list[str]) -> tuple[str, bool]:
    text = " ".join(command)
    if "/dev/tcp/" not in text and "/dev/udp/" not in text:
        return "", False
    found = shell.invocation(command)
    script = found.script if found else text
    if shell.Script(script).cannot_fail:
        return "", False  # HW113: it passes whatever /dev/tcp does
    nested = re.search(r"\bbash\s+(-\w+\s+)*-\w*c\b", script)
    for each in shell.Script(script).commands:
        for before, word in zip(each.words, each.words[1:], strict=False):
            if word.startswith(("/dev/tcp/", "/dev/udp/")) and not before.endswith(("<", ">", "<>")):
                return (
                    f"/dev/tcp is known to bash and only in redirections: `{each.program} … {word}` opens a file of"
                    " that name, which does not exist in any shell (exit 1)"
                ), True
    if found is None:
        return "no shell reads it, so /dev/tcp is a file that does not exist", True
    if found.shell == "bash" or nested:
        return "", False
    sh = images.read(container.image).sh
    if sh in ("dash", "ash"):
        name = "dash" if sh == "dash" else "BusyBox ash"
        return (
            f"/bin/sh of this image is {name}, which does not know /dev/tcp: `cannot create /dev/tcp/…`, exit 2",
            True,
        )
    if sh == "":
        return (
            "unless sh is bash in this image (in Debian's, Ubuntu's and Alpine's it is not), /dev/tcp does not exist",
            False,
        )
    return "", False


@rule("HW112", "program-not-in-the-image", BREAKS, 3)
def program_not_in_the_image(model: Model) -> Iterator[Found]:
    """A probe runs a shell or program that its image does not have.

    Source: GoogleContainerTools/distroless README: images "do not contain package managers, shells or any other
    programs you would expect to find in a standard Linux distribution"; Docker Official Images, python: the slim
    variant "only contains the minimal Debian packages needed to run python".
    """
    for container, probe, place in exec_probes(model):
        image = images.read(container.image)
        missing = _missing(image, probe.command)
        if missing is None or shell.why_it_cannot_work(probe.command):
            continue
        name, started = missing
        shown = f"no `{name}` in {_say_image(image)}"
        if started:  # a shell looks for it in vain: exit 127, which counts
            yield Found(
                place,
                f"{shown}: the shell says 127, which counts as failed; {_fails(probe)}",
                _instead(container, probe, f"The image has no {name}; the kubelet itself asks."),
            )
        else:
            yield Found(
                place,
                f"{shown}: the command cannot be started, an error of the prober (containerd, CRI-O); {_errs(probe)}",
                _instead(container, probe, f"The image has no {name}; the kubelet itself asks."),
                RISKS if probe.kind == LIVENESS else BREAKS,
            )


def _say_image(image: images.Image) -> str:
    return "a distroless image" if image.base == "distroless" else f"{image.name}:{image.tag}"


def _missing(image: images.Image, command: list[str]) -> tuple[str, bool] | None:
    """The first program that is not there, and whether a shell was started to look for it."""
    first = shell.program(command[0])
    if image.has(first) is False:
        return first, False
    found = shell.invocation(command)
    if found is None:
        return None
    if shell.Script(found.script).cannot_fail:
        return None  # HW113: 127 is not what the script ends with
    commands = shell.Script(found.script).commands
    for each, following in zip(commands, [*commands[1:], None], strict=False):
        names = [each.program]
        if each.program == "timeout" and len(each.proper) > 2:
            names.append(shell.program(each.proper[2]))
        # `curl … || wget …` has a second way; `curl … || exit 1` has none.
        another_way = each.after == "||" and following is not None and following.program not in ("exit", "false")
        for name in names:
            if (
                image.has(name) is False
                and not another_way
                and (following is None or following.proper != ("exit", "0"))
            ):
                return name, True
    return None


def cannot_fail(probe: Probe) -> str:
    """Why a probe's command succeeds whatever it finds; "" if it can fail."""
    command = probe.command
    found = shell.invocation(command)
    if found is not None:
        return shell.Script(found.script).cannot_fail
    if command and shell.program(command[0]) in ("true", "echo", "sleep", "date", "ls"):
        return f"`{' '.join(command)}` succeeds whatever state the server is in"
    return ""


@rule("HW113", "probe-that-cannot-fail", RISKS, 6)
def probe_that_cannot_fail(model: Model) -> Iterator[Found]:
    """A probe's command succeeds whatever it finds.

    Source: POSIX.1-2024, Shell Command Language, 2.9.2 "Pipelines": the exit status is the last command's; 2.9.3
    "Lists".
    """
    for _, probe, place in exec_probes(model):
        why = cannot_fail(probe)
        if why:
            what = {
                LIVENESS: "a stuck server is never restarted",
                STARTUP: "the start counts as done before the server listens",
            }.get(probe.kind, "the pod is Ready before it listens, and stays so when it no longer answers")
            yield Found(place, f"{why}: {what}", advice="Let the command's own exit status be the last.")


@rule("HW114", "command-that-cannot-work", BREAKS, 3)
def command_that_cannot_work(model: Model) -> Iterator[Found]:
    """A probe's command is quoted wrongly, or uses a shell's operators without a shell.

    Source: Kubernetes API, ExecAction v1 core, command: "The command is simply exec'd, it is not run inside a shell, so
    traditional shell instructions ('|', etc) won't work."
    """
    for _, probe, place in exec_probes(model):
        why = shell.why_it_cannot_work(probe.command)
        if not why:
            continue
        if len(probe.command) == 1:
            changes = (Change(place, probe.command[0].split(), "One word an item: no shell splits the line."),)
            yield Found(place, f"{why}; {_errs(probe)}", changes, RISKS if probe.kind == LIVENESS else BREAKS)
        elif shell.invocation(probe.command):
            yield Found(place, f"{why}; {_fails(probe)}", advice="One pair of quotes: YAML's.")
        else:
            changes = (Change(place, ["sh", "-c", " ".join(probe.command)], "Operators need a shell that reads them."),)
            yield Found(place, f"{why}; {_fails(probe)}", changes)


def known_fault(container: Container, probe: Probe) -> bool:
    """True for a command that another rule here has something to say of: then its patience does not matter."""
    command = probe.command
    if probe.action != "exec" or not command:
        return False
    return bool(
        shell.why_it_cannot_work(command)
        or cannot_fail(probe)
        or _dev_tcp(container, command)[0]
        or _missing(images.read(container.image), command)
    )


_INTERPRETERS = {
    "python": 0.3,
    "python3": 0.3,
    "node": 0.2,
    "ruby": 0.3,
    "php": 0.1,
    "java": 1.0,
    "perl": 0.05,
    "dotnet": 0.5,
}


@rule("HW115", "interpreter-in-a-second", RISKS, 7)
def interpreter_in_a_second(model: Model) -> Iterator[Found]:
    """An exec probe starts an interpreter and has one second for it.

    Source: Kubernetes, "Configure Probes", timeoutSeconds: "Defaults to 1 second", and since 1.20 it is enforced for
    exec probes. The seconds of CPU are measured: an interpreter with an HTTP client's imports.
    """
    for container, probe, _ in exec_probes(model):
        found = shell.invocation(probe.command)
        names = (
            [each.program for each in shell.Script(found.script).commands]
            if found
            else [shell.program(probe.command[0])]
        )
        name = next((name for name in names if re.sub(r"[\d.]+$", "", name) in _INTERPRETERS), None)
        if name is None or probe.timeout > 1:
            continue
        cost = _INTERPRETERS[re.sub(r"[\d.]+$", "", name)]
        limit = cpu(container.limit("cpu").text)
        slowed = (
            f"; under a limit of {limit:g} cores that takes {cost / limit:.1f} s or more" if limit and limit < 1 else ""
        )
        seconds = max(5, round(cost / limit) * 2 if limit else 0)
        if seconds >= probe.period:
            seconds = max(2, probe.period - 1)
        yield Found(
            probe.place.get("timeoutSeconds"),
            f"`{name}` takes some {cost:g} s of CPU to start, and the probe has {probe.timeout} s{slowed}: on a busy"
            f" node it is killed before it has asked anything; {_fails(probe)}",
            (Change(probe.place.get("timeoutSeconds"), seconds, f"{name} has to start first, {cost:g} s of CPU."),),
            NOTE if cost < 0.1 else RISKS,
        )
