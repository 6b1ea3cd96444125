"""Everything that was read, and how its parts belong together. Rules ask only this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from . import images
from .place import Object
from .servers import Server, detect
from .traffic import Route, mark_carriers, routes_of
from .workloads import KINDS, Container, Workload, heartbeat, is_patch, read_workload

#: Kinds that some rule reads. Others are skipped and named.
_KNOWN = frozenset(KINDS) | frozenset(
    """
    Service Ingress HTTPRoute GRPCRoute VirtualService DestinationRule HTTPProxy Route IngressRoute Middleware
    HorizontalPodAutoscaler VerticalPodAutoscaler PodDisruptionBudget NetworkPolicy ConfigMap BackendConfig
    GCPBackendPolicy ScaledObject EnvoyFilter ClientTrafficPolicy BackendTrafficPolicy Gateway GatewayClass
    Namespace Secret ServiceAccount PersistentVolumeClaim VirtualServer VirtualServerRoute HelmChartConfig
    CiliumEnvoyConfig CiliumClusterwideEnvoyConfig EnvoyPatchPolicy ServiceProfile Mapping HealthCheckPolicy
    """.split()
)


class Model:
    """The objects of one run.

    stream_path: where streams are, if the user said so.
    """

    def __init__(self, objects: Iterable[Object], stream_path: str | None = None) -> None:
        self.objects = list(objects)
        self.stream_path = stream_path
        self.notes: list[str] = []
        self.configs = {(each.namespace, each.name): each for each in self.objects if each.kind == "ConfigMap"}
        self.workloads: list[Workload] = []
        self._servers: dict[int, Server] = {}
        self._selected: dict[int, list[Workload]] = {}
        self._named = {(each.kind, each.namespace, each.name) for each in self.objects}
        for each in self.objects:
            self._sort(each)
        self.routes = [route for each in self.objects if not self.knative(each) for route in routes_of(each)]
        mark_carriers(self.routes, stream_path)

    def _sort(self, object: Object) -> None:
        if object.kind in KINDS:
            if self._owned(object):
                return  # its owner is here and has the same template
            if is_patch(object):
                self.notes.append(
                    f"{object.id}: passed over, a patch without an image; give what `kustomize build` prints"
                )
                return
            workload = read_workload(object, self.configs)
            if workload is not None:
                self.workloads.append(workload)
        elif object.kind == "Kustomization":
            self.notes.append(f"{object.file}: not built; give what `kubectl kustomize` prints")
        elif object.kind not in _KNOWN:
            self.notes.append(f"{object.id}: passed over, a kind that no rule knows")

    def _owned(self, object: Object) -> bool:
        """Return True for a ReplicaSet of a Deployment that is here, and for a pod of either."""
        for owner in object.at("metadata", "ownerReferences").items():
            kind, name = owner.get("kind").text or "", owner.get("name").text or ""
            if (kind, object.namespace, name) in self._named:
                return True
            digest = object.at("metadata", "labels", "pod-template-hash").text
            deployment = name.removesuffix(f"-{digest}") if digest else ""
            if kind == "ReplicaSet" and ("Deployment", object.namespace, deployment) in self._named:
                return True
        return False

    def kind(self, *kinds: str) -> Iterator[Object]:
        return (each for each in self.objects if each.kind in kinds)

    @staticmethod
    def knative(object: Object) -> bool:
        return object.group == "serving.knative.dev"

    @cached_property
    def services(self) -> list[Object]:
        return [each for each in self.kind("Service") if not self.knative(each)]

    def service(self, name: str, namespace: str) -> Object | None:
        """Find a Service by its name; without a namespace it is in the caller's."""
        for each in self.services:
            if each.name == name and (each.namespace == namespace or not each.namespace or not namespace):
                return each
        return None

    def selected(self, service: Object) -> list[Workload]:
        """Return the workloads that a Service sends to."""
        found = self._selected.get(id(service))
        if found is None:
            selector = {key: place.text for key, place in service.at("spec", "selector").entries()}
            found = [
                workload
                for workload in self.workloads
                if selector
                and workload.object.namespace == service.namespace
                and selector.items() <= workload.labels.items()
            ]
            self._selected[id(service)] = found
        return found

    def services_of(self, workload: Workload) -> list[Object]:
        return self._services_of.get(id(workload), [])

    @cached_property
    def _services_of(self) -> dict[int, list[Object]]:
        found: dict[int, list[Object]] = {}
        for service in self.services:
            for workload in self.selected(service):
                found.setdefault(id(workload), []).append(service)
        return found

    def behind(self, route: Route) -> list[Workload]:
        found = []
        for name in route.services:
            service = self.service(name, route.object.namespace)
            if service is not None:
                found += self.selected(service)
        return found

    def server(self, container: Container) -> Server:
        key = id(container)
        if key not in self._servers:
            self._servers[key] = detect(container, self.configs)
        return self._servers[key]

    @cached_property
    def streaming(self) -> list[Workload]:
        """Return the workloads that serve streams, as far as can be told.

        A backend (Redis, a database) does not, nor does a workload without port, probe and Service. If the user named
        the stream's path and routes lead it to a Service, it is that Service's workloads.
        """
        candidates = [workload for workload in self.workloads if self._may_stream(workload)]
        if self.stream_path is not None:
            named = {id(workload) for route in self.routes if route.carries for workload in self.behind(route)}
            chosen = [workload for workload in candidates if id(workload) in named]
            return chosen or candidates
        return candidates

    def _may_stream(self, workload: Workload) -> bool:
        serving = [each for each in workload.containers if not images.read(each.image).backend]
        if not serving or all(self.server(each).name == "celery" for each in serving):
            return False
        return any(each.ports or each.probes for each in serving) or bool(self.services_of(workload))

    @cached_property
    def containers(self) -> list[Container]:
        """Return the containers of those workloads that may hold streams, without helpers like log shippers."""
        return [
            container
            for workload in self.streaming
            for container in workload.containers
            if not images.read(container.image).backend
        ]

    @cached_property
    def main_containers(self) -> list[Container]:
        """Return the containers that are no sidecars."""
        return [container for container in self.containers if not container.sidecar]

    def carriers(self, *kinds: str) -> list[Object]:
        """Return the route objects that streams take, each once."""
        found: dict[int, Object] = {}
        for route in self.routes:
            if route.carries and route.object.kind in kinds:
                found[id(route.object)] = route.object
        return list(found.values())

    def beside_the_streams(self, route: Route) -> bool:
        """Return True for a general route whose object has another for streams: a limit on it is intended."""
        return (
            self.stream_path is None
            and not route.names_stream
            and any(other.object is route.object and other.names_stream for other in self.routes)
        )

    def heartbeat(self, object: Object) -> float | None:
        """Return the heartbeat of what is behind a route object, in seconds; None if nothing shows it."""
        beats = [
            beat
            for route in self.routes
            if route.object is object and route.carries
            for workload in self.behind(route)
            for container in workload.containers
            if (beat := heartbeat(container.env)) is not None
        ]
        return min(beats, default=None)

    def any_heartbeat(self) -> float | None:
        """Return the streams' heartbeat, for what is not tied to one route."""
        beats = [beat for container in self.containers if (beat := heartbeat(container.env)) is not None]
        return min(beats, default=None)

    def apart(self, container: Container, port: str) -> bool:
        """Return True if streams cannot fill a port, because it is not theirs by its name or by the Services."""
        number = container.port_number(port)
        if number is None or len(container.ports) < 2:
            return False
        names = {name for name, value in container.ports.items() if value == number}
        if any(
            word in name
            for name in names
            for word in ("health", "probe", "admin", "metric", "mgmt", "manage", "internal", "status", "monitor")
        ):
            return True
        targets = {
            container.port_number(target)
            for service in self.services_of(container.workload)
            for target in self.target_ports(service)
        }
        return bool(targets) and number not in targets

    @staticmethod
    def target_ports(service: Object) -> list[str]:
        return [
            port.get("targetPort").text or port.get("port").text or "" for port in service.at("spec", "ports").items()
        ]
