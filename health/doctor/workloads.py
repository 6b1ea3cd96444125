"""Workloads, containers and probes: what a pod is made of, with Kubernetes' defaults filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .place import Object, Place
from .units import FOREVER, setting_seconds

KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod", "Rollout")

LIVENESS, READINESS, STARTUP = "livenessProbe", "readinessProbe", "startupProbe"


@dataclass(slots=True, eq=False)
class Probe:
    """One probe, with Kubernetes' default numbers filled in (Probe v1 core)."""

    kind: str
    place: Place
    action: str  # "http", "exec", "tcp", "grpc", or "" if it has none
    path: str  # an HTTP probe's, without its query
    port: str  # as written: a number or a name
    initial: int
    period: int
    timeout: int
    failures: int

    @property
    def patience(self) -> int:
        """Return the seconds from the start until it has failed for good, with one try each period."""
        return self.initial + self.failures * self.period

    @property
    def stall(self) -> int:
        """Return the seconds without an answer that fail it, from the first try to the last one's time-out."""
        return (self.failures - 1) * self.period + self.timeout

    @property
    def command(self) -> list[str]:
        return [item.text or "" for item in self.place.get("exec", "command").items()]

    @property
    def target(self) -> tuple[str, ...]:
        """Return what it asks; equal for two probes that ask the same."""
        return (self.action, self.port, self.path or " ".join(self.command))


@dataclass(slots=True, eq=False)
class Word:
    """One word of a container's command line."""

    text: str
    list: Place  # `command` or `args`
    index: int


@dataclass(slots=True, eq=False)
class Container:
    workload: Workload
    place: Place
    name: str
    image: str
    sidecar: bool  # an init container that stays (restartPolicy: Always)
    words: list[Word]
    probes: dict[str, Probe]
    env: dict[str, str] = field(default_factory=dict)
    env_places: dict[str, Place] = field(default_factory=dict)
    env_known: bool = True  # False: some of it comes from objects that were not given
    mounts: dict[str, str] = field(default_factory=dict)  # by path: the volume's name
    ports: dict[str, int] = field(default_factory=dict)  # the declared ones, by name, else by number

    def port_number(self, port: str) -> int | None:
        return int(port) if port.isdigit() else self.ports.get(port)

    @property
    def command_place(self) -> Place:
        """Return where the command line is set: the list with the last words, or where it would be."""
        return self.words[-1].list if self.words else self.place.get("args")

    @property
    def hook(self) -> Place:
        return self.place.get("lifecycle", "preStop")

    def limit(self, what: str) -> Place:
        return self.place.get("resources", "limits", what)


@dataclass(slots=True, eq=False)
class Workload:
    object: Object
    pod: Place  # the pod's spec
    template: Place  # the parent of the pod's metadata and spec
    labels: dict[str, str]
    containers: list[Container] = field(default_factory=list)

    @property
    def grace_place(self) -> Place:
        return self.pod.get("terminationGracePeriodSeconds")

    @property
    def grace(self) -> int:
        return self.grace_place.integer(30)

    @property
    def replicas_place(self) -> Place:
        return self.object.at("spec", "replicas")

    @property
    def replicas(self) -> int:
        """Return the number of replicas, 1 by default; a DaemonSet has one per node, so more than one."""
        if self.object.kind == "DaemonSet":
            return 2
        return self.replicas_place.integer(1) if self.object.kind != "Pod" else 1


def pod_places(object: Object) -> tuple[Place, Place] | None:
    """Return the template and the pod's spec of a workload; None if it has none."""
    template = object.at() if object.kind == "Pod" else object.at("spec", "template")
    pod = template.get("spec")
    return (template, pod) if pod else None


def is_patch(object: Object) -> bool:
    """Return True for a fragment to merge into a whole: no container has an image."""
    places = pod_places(object)
    if places is None:
        return object.kind != "Rollout" or not object.at("spec", "workloadRef")
    return not any(container.get("image") for container in places[1].get("containers").items())


def read_workload(object: Object, configs: Mapping[tuple[str, str], Object]) -> Workload | None:
    places = pod_places(object)
    if places is None:
        return None
    template, pod = places
    labels = {key: place.text or "" for key, place in template.get("metadata", "labels").entries()}
    workload = Workload(object, pod, template, labels)
    for list_name in ("initContainers", "containers"):
        for place in pod.get(list_name).items():
            sidecar = list_name == "initContainers"
            if sidecar and place.get("restartPolicy").text != "Always":
                continue  # it ends before the others start
            workload.containers.append(_read_container(workload, place, sidecar, configs))
    return workload


def _read_container(
    workload: Workload, place: Place, sidecar: bool, configs: Mapping[tuple[str, str], Object]
) -> Container:
    container = Container(
        workload,
        place,
        place.get("name").text or "",
        place.get("image").text or "",
        sidecar,
        [],
        {kind: _read_probe(kind, place.get(kind)) for kind in (STARTUP, LIVENESS, READINESS) if place.get(kind)},
    )
    for port in place.get("ports").items():
        number = port.get("containerPort").integer(0)
        container.ports[port.get("name").text or str(number)] = number
    for mount in place.get("volumeMounts").items():
        container.mounts[mount.get("mountPath").text or ""] = mount.get("name").text or ""
    _read_env(container, configs)
    for name in ("command", "args"):
        words = place.get(name)
        for number, item in enumerate(words.items()):
            container.words.append(Word(expand(item.text or "", container.env), words, number))
    return container


def _read_env(container: Container, configs: Mapping[tuple[str, str], Object]) -> None:
    namespace = container.workload.object.namespace
    for source in container.place.get("envFrom").items():
        config = configs.get((namespace, source.get("configMapRef", "name").text or ""))
        if config is None:
            container.env_known = False
            continue
        prefix = source.get("prefix").text or ""
        for key, value in config.at("data").entries():
            if value:
                container.env[prefix + key] = value.text or ""
                container.env_places[prefix + key] = value
    for item in container.place.get("env").items():
        name = item.get("name").text or ""
        reference = item.get("valueFrom", "configMapKeyRef")
        config = configs.get((namespace, reference.get("name").text or ""))
        if not item.get("valueFrom"):
            container.env[name] = expand(item.get("value").text or "", container.env)
            container.env_places[name] = item.get("value")
        elif reference and config is not None:
            value = config.at("data", reference.get("key").text or "")
            container.env[name] = value.text or ""
            container.env_places[name] = value
        else:
            container.env.setdefault(name, "")  # it exists, with an unknown value
            container.env_places.setdefault(name, item)


_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` as the kubelet does: unknown names stay, ``$$`` is one ``$``."""
    return _REFERENCE.sub(lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]), text)


def _read_probe(kind: str, place: Place) -> Probe:
    actions = {"httpGet": "http", "exec": "exec", "tcpSocket": "tcp", "grpc": "grpc"}
    name = next((key for key in actions if place.get(key)), "")
    action = place.get(name) if name else place
    path = action.get("path").text or "/" if name == "httpGet" else ""
    return Probe(
        kind,
        place,
        actions.get(name, ""),
        path.partition("?")[0],
        action.get("port").text or "",
        place.get("initialDelaySeconds").integer(0),
        max(1, place.get("periodSeconds").integer(10)),
        max(1, place.get("timeoutSeconds").integer(1)),
        max(1, place.get("failureThreshold").integer(3)),
    )


_HEARTBEAT = re.compile(r"HEART_?BEAT|SSE_?PING|PING_INTERVAL|SSE_KEEP_?ALIVE", re.IGNORECASE)

#: Heartbeats of connections that are not the clients'.
_NOT_THE_STREAMS = re.compile(
    r"KAFKA|RABBIT|AMQP|BROKER|CELERY|CONSUL|RAFT|ETCD|LEADER|LEASE|SESSION|GRPC|REDIS|NATS|MQTT|DB_|POSTGRES|SENTRY|WORKER|"
    r"(^|_)(WS|WEBSOCKET)_",
    re.IGNORECASE,
)


def heartbeat(env: Mapping[str, str]) -> float | None:
    """Return the seconds between two heartbeats, if the environment shows them."""
    for name, value in env.items():
        if _HEARTBEAT.search(name) and not _NOT_THE_STREAMS.search(name):
            found = setting_seconds(name, value)
            if found and found != FOREVER:
                return found
    return None
