"""HW106 to HW108: where probes are sent, and where the server listens."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import BREAKS, DELETE, RISKS, Change, Found, rule
from ..model import Model
from ..workloads import LIVENESS, Container
from .probes import probes_of


@rule("HW106", "probe-of-the-node", BREAKS, 3)
def probe_of_the_node(model: Model) -> Iterator[Found]:
    """A probe names a host: the kubelet asks from the node, so localhost is the node.

    Source: Kubernetes API, HTTPGetAction v1 core, host: "Host name to connect to, defaults to the pod IP."
    """
    for container, probe in probes_of(model):
        for action in ("httpGet", "tcpSocket"):
            host = probe.place.get(action, "host")
            if (
                host.text in ("localhost", "127.0.0.1", "::1", "0.0.0.0")
                and not container.workload.pod.get("hostNetwork").true
            ):
                yield Found(
                    host,
                    f"the kubelet connects from the node, so {host.text} is the node and not the pod: the probe is"
                    f" refused, or answered by something else; after {probe.failures} × {probe.period} s it has"
                    " failed",
                    (Change(host, DELETE, "Without a host the kubelet asks the pod."),),
                )


@rule("HW107", "probe-of-an-unknown-port", BREAKS, 3)
def probe_of_an_unknown_port(model: Model) -> Iterator[Found]:
    """A probe names a port that its container does not have.

    Source: kubernetes/kubernetes pkg/probe/util.go, ResolveContainerPort: "couldn't find port"; the prober reports an
    error, which counts neither way.
    """
    for container, probe in probes_of(model):
        if not probe.port or probe.port.isdigit() or probe.port in container.ports:
            continue
        key = {"http": "httpGet", "tcp": "tcpSocket", "grpc": "grpc"}.get(probe.action, "httpGet")
        names = ", ".join(name for name in container.ports) or "none"
        after = "liveness tests nothing" if probe.kind == LIVENESS else "the pod is never Ready"
        yield Found(
            probe.place.get(key, "port"),
            f"the container has no port called {probe.port} (its ports: {names}): the probe errors and counts neither"
            f" way, so {after}",
            severity=RISKS if probe.kind == LIVENESS else BREAKS,
        )


@rule("HW108", "probe-of-another-port", BREAKS, 3)
def probe_of_another_port(model: Model) -> Iterator[Found]:
    """The server's command says where it listens, and the probe asks elsewhere, or the address is the pod's loopback.

    Source: Uvicorn, "Settings", --host: default 127.0.0.1; gunicorn, "Settings", bind: default ['127.0.0.1:8000'], or
    0.0.0.0:$PORT if PORT is defined; the kubelet asks the pod's address.
    """
    for container in model.containers:
        listens = _listens(model, container)
        if listens is None:
            continue
        host, port, said = listens
        asked = [probe for probe in container.probes.values() if probe.action in ("http", "tcp")]
        if host in ("127.0.0.1", "localhost", "::1"):
            asked = [probe for probe in asked if not probe.place.get("httpGet", "host")]
            if asked and not container.workload.pod.get("hostNetwork").true and _single(container):
                bare = server_default(model, container)
                yield Found(
                    container.command_place,
                    f"{said} is the pod's own loopback: neither the kubelet (the pod's address) nor the Service"
                    f" reaches it; every {asked[0].kind} is"
                    " refused" + (" (assumed: no gunicorn.conf.py in the image)" if bare else ""),
                    severity=RISKS if bare else BREAKS,
                    advice=f"Listen on all addresses: 0.0.0.0:{port}.",
                )
            continue
        for probe in asked:
            number = container.port_number(probe.port)
            if number is not None and number != port and number not in container.ports.values() and _single(container):
                key = "httpGet" if probe.action == "http" else "tcpSocket"
                yield Found(
                    probe.place.get(key, "port"),
                    f"the server listens on {port} ({said}) and the probe asks {number}: refused each time",
                    (Change(probe.place.get(key, "port"), port, f"Where the server listens: {said}."),),
                )


def server_default(model: Model, container: Container) -> bool:
    """True if the address is gunicorn's default, which a file in the image may change."""
    server = model.server(container)
    return server.name == "gunicorn" and "bind" not in server.options


def _single(container: Container) -> bool:
    return sum(not each.sidecar for each in container.workload.containers) == 1


def _listens(model: Model, container: Container) -> tuple[str, int, str] | None:
    """Host, port and what says so; None where it cannot be seen."""
    server = model.server(container)
    if not server.settled or not container.env_known:
        return None
    if server.name in ("gunicorn", "hypercorn") and (bind := server.get("bind")) is not None:
        host, _, port = bind.strip("[]'\" ").rpartition(":")
        return (host.strip("[]"), int(port), f"--bind {bind}") if port.isdigit() and "," not in bind else None
    if server.name == "gunicorn" and "PORT" not in container.env and "config" not in server.options and server.app:
        return "127.0.0.1", 8000, "gunicorn's default, 127.0.0.1:8000,"
    if server.name == "uvicorn" and not {"uds", "fd"} & server.options.keys() and server.app not in ("run", "dev", ""):
        port = server.get("port") or "8000"
        host = server.get("host") or "127.0.0.1"
        said = f"--host {host}" if server.get("host") else "uvicorn's default host, 127.0.0.1,"
        return (host, int(port), said if host == "127.0.0.1" else f"--port {port}") if port.isdigit() else None
    return None
