"""Reads a pod from Kubernetes manifests: the container's command, environment, ports and probes.

It simulates what a container gets from the cluster: each of its ports is mapped to a free local port, and the
environment, the command and the probes follow. Anything unknown is an error, not a guess: a probe that silently does
not run proves nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.kubelet.specs import Action, Exec, HttpGet, Kind, PodSpec, ProbeSpec, TcpSocket

#: Which setting tells the process a named port, if the manifest leaves it to the default.
PORT_SETTINGS: Final = {"http": "PORT", "health": "HEALTH_PORT"}

_PROBES: Final = {
    "startupProbe": Kind.STARTUP,
    "livenessProbe": Kind.LIVENESS,
    "readinessProbe": Kind.READINESS,
}
_ACTIONS: Final = ("httpGet", "tcpSocket", "exec", "grpc")
_PROBE_FIELDS: Final = {
    "initialDelaySeconds": ("initial_delay", 0),
    "periodSeconds": ("period", 1),
    "timeoutSeconds": ("timeout", 1),
    "successThreshold": ("success_threshold", 1),
    "failureThreshold": ("failure_threshold", 1),
    "terminationGracePeriodSeconds": ("grace", 1),
}


class ManifestError(ValueError):
    """The manifest cannot be run: what the API server would refuse, the kubelet could not start, or this simulator does
    not know."""


def load_documents(path: Path) -> list[dict[str, Any]]:
    """Load all documents of a file, or of a directory's ``*.yaml`` files (like ``kubectl apply -f``)."""
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return [document for file in files for document in load_all(file.read_text())]


def load_all(text: str) -> list[dict[str, Any]]:
    """Load all documents of a text, with libyaml if present: it is ten times as fast, and tests read files often."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document is not None]


def pod_from_manifest(
    source: Path | Sequence[Mapping[str, Any]],
    *,
    free_port: Callable[[], int],
    deployment: str | None = None,
    container: str | None = None,
    command: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path(),
    port_settings: Mapping[str, str] = PORT_SETTINGS,
) -> PodSpec:
    """Read the pod of a Deployment, StatefulSet or Pod.

    source: a file, a directory, or documents.
    free_port: called once for each of the container's ports; returns a local port.
    deployment: the workload's name; by default there must be only one.
    container: the container's name; by default the first.
    command: what to run if the manifest leaves it to the image.
    env: wins over the manifest (for example a log in a temporary directory).
    port_settings: see ``PORT_SETTINGS``.
    Raises ManifestError if it cannot be run as it is.
    """
    documents = load_documents(source) if isinstance(source, Path) else list(source)
    workload = _pick(
        [doc for doc in documents if doc.get("kind") in ("Deployment", "StatefulSet", "Pod")],
        deployment,
        lambda doc: doc["metadata"]["name"],
        "workload",
    )
    pod = workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]
    spec = _pick(pod["containers"][:1] if container is None else pod["containers"], container, _name, "container")
    mapped = {port["containerPort"]: (port.get("name", ""), free_port()) for port in spec.get("ports", ())}
    environ = _environment(spec, documents, workload["metadata"]["name"])
    for number, (port_name, _) in mapped.items():
        if port_name in port_settings:
            environ.setdefault(port_settings[port_name], str(number))
    environ = {name: _local_port(name, value, mapped) for name, value in environ.items()}
    environ |= env or {}
    argv = list(command or spec.get("command", ())) + list(spec.get("args", ()))
    if not argv:
        raise ManifestError(f"container {spec['name']}: no command here, and none was given for the image's")
    return PodSpec(
        name=workload["metadata"]["name"],
        container=spec["name"],
        command=tuple(_local_url(expand(word, environ), mapped) for word in argv),
        env=environ,
        ports={name or str(number): local for number, (name, local) in mapped.items()},
        probes={kind: _probe(spec[field], field, mapped) for field, kind in _PROBES.items() if field in spec},
        grace=float(pod.get("terminationGracePeriodSeconds", 30)),
        cwd=cwd,
    )


def _name(document: Mapping[str, Any]) -> str:
    return str(document["name"])


def _pick(found: list[Any], name: str | None, name_of: Callable[[Any], str], what: str) -> Any:
    chosen = [one for one in found if name is None or name_of(one) == name]
    if len(chosen) != 1:
        names = ", ".join(map(name_of, found)) or "none"
        raise ManifestError(f"one {what} {name or ''} is needed; there is: {names}")
    return chosen[0]


# ── environment ───────────────────────────────────────────────────────────────────────────────────────────


def _environment(spec: Mapping[str, Any], documents: Sequence[Mapping[str, Any]], pod: str) -> dict[str, str]:
    """Kubernetes documentation, "Define Environment Variables for a Container" and "Configure a Pod to Use a
    ConfigMap": ``env`` goes before ``envFrom``, later sources before earlier ones."""
    environ: dict[str, str] = {}
    for source in spec.get("envFrom", ()):
        prefix = source.get("prefix", "")
        kind = "ConfigMap" if "configMapRef" in source else "Secret"
        reference = source.get("configMapRef") or source.get("secretRef")
        if reference is None:
            raise ManifestError(f"envFrom: {sorted(source)} is not known here")
        data = _data(documents, kind, reference["name"], reference.get("optional", False))
        environ |= {prefix + name: value for name, value in (data or {}).items()}
    for entry in spec.get("env", ()):
        if "valueFrom" in entry:
            value = _value_from(entry["name"], entry["valueFrom"], documents, pod)
            if value is not None:
                environ[entry["name"]] = value
        else:
            # "Define Dependent Environment Variables"
            value = entry.get("value", "")
            if not isinstance(value, str):
                raise ManifestError(f"env {entry['name']}: a value must be a string, not {value!r}: quote it")
            environ[entry["name"]] = expand(value, environ)
    return environ


def _value_from(name: str, source: Mapping[str, Any], documents: Sequence[Mapping[str, Any]], pod: str) -> str | None:
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if (reference := source.get(field)) is not None:
            optional = reference.get("optional", False)
            data = _data(documents, kind, reference["name"], optional) or {}
            if reference["key"] not in data and not optional:
                raise ManifestError(f"env {name}: {kind} {reference['name']} has no key {reference['key']}")
            return data.get(reference["key"])
    known = {
        "metadata.name": f"{pod}-local",
        "metadata.namespace": "default",
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
        "spec.nodeName": "local",
    }
    path = source.get("fieldRef", {}).get("fieldPath")
    if path not in known:
        raise ManifestError(f"env {name}: valueFrom {dict(source)!r} is not known here")
    return known[path]


def _data(documents: Sequence[Mapping[str, Any]], kind: str, name: str, optional: bool) -> dict[str, str] | None:
    for document in documents:
        if document.get("kind") == kind and document["metadata"]["name"] == name:
            data = {key: str(value) for key, value in (document.get("data") or {}).items()}
            if kind == "Secret":
                data = {key: base64.b64decode(value).decode() for key, value in data.items()}
            return data | dict(document.get("stringData") or {})
    if not optional:
        raise ManifestError(f"{kind} {name} is missing and not optional: CreateContainerConfigError")
    return None


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the variable's value, ``$$`` by a dollar sign; unknown names stay."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environ.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)", value, text)


# ── ports and probes ──────────────────────────────────────────────────────────────────────────────────────

_Mapped = Mapping[int, tuple[str, int]]


def _local_port(name: str, value: str, mapped: _Mapped) -> str:
    """Make a port setting follow its port."""
    if (name == "PORT" or name.endswith("_PORT")) and value.isdecimal() and int(value) in mapped:
        return str(mapped[int(value)][1])
    return value


def _local_url(word: str, mapped: _Mapped) -> str:
    """Make ``host:8080`` in a command follow its port."""
    for number, (_, local) in mapped.items():
        word = re.sub(rf":{number}(?![0-9])", f":{local}", word)
    return word


def _probe(probe: Mapping[str, Any], field: str, mapped: _Mapped) -> ProbeSpec:
    known = {*_PROBE_FIELDS, *_ACTIONS}
    if unknown := sorted(set(probe) - known):
        raise ManifestError(f"{field}: {', '.join(unknown)} is not known")
    values: dict[str, Any] = {}
    for name, (ours, least) in _PROBE_FIELDS.items():
        if name in probe:
            value = probe[name]
            if type(value) is not int or value < least:
                raise ManifestError(f"{field}.{name}: {value!r}, the minimum is {least}")
            values[ours] = value
    if field != "readinessProbe" and values.get("success_threshold", 1) != 1:
        raise ManifestError(f"{field}.successThreshold must be 1")  # CP "Configure Probes"
    if field == "readinessProbe" and "grace" in values:
        raise ManifestError(f"{field}.terminationGracePeriodSeconds is refused by the API server")
    return ProbeSpec(_action(probe, field, mapped), **values)


def _action(probe: Mapping[str, Any], field: str, mapped: _Mapped) -> Action:
    given = [name for name in _ACTIONS if name in probe]
    if len(given) != 1 or given == ["grpc"]:
        raise ManifestError(f"{field}: one of httpGet, tcpSocket and exec is needed, not {given}")
    action = probe[given[0]]
    if given == ["exec"]:
        return Exec(tuple(_local_url(word, mapped) for word in action["command"]))
    if action.get("host") or action.get("scheme", "HTTP") != "HTTP":
        raise ManifestError(f"{field}: host and HTTPS are not known here")
    port = action["port"]
    for number, (name, local) in mapped.items():
        if port in (number, name):
            if given == ["tcpSocket"]:
                return TcpSocket(local)
            headers = tuple((header["name"], header["value"]) for header in action.get("httpHeaders", ()))
            return HttpGet(local, action.get("path", "/"), headers)
    raise ManifestError(f"{field}: the container has no port {port!r}")
