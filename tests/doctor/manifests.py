"""Manifests for the doctor's tests, from the few fields that a case is about, and what is found in them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from health.doctor import rules as _rules  # noqa: F401  (fills the table)
from health.doctor.finding import Finding, examine
from health.doctor.load import Loaded, take
from health.doctor.model import Model

Data = dict[str, Any]

HTTP = {"httpGet": {"path": "/healthz", "port": 8080}}

#: Probes without a fault.
GOOD_PROBES = {
    "startupProbe": {"httpGet": {"path": "/startupz", "port": "health"}, "periodSeconds": 2, "failureThreshold": 60},
    "livenessProbe": {
        "httpGet": {"path": "/healthz", "port": "health"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
    },
    "readinessProbe": {
        "httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 2,
    },
}  # fmt: skip

PORTS = [{"name": "http", "containerPort": 8080}, {"name": "health", "containerPort": 8081}]


def container(**fields: Any) -> Data:
    """Return a container without a fault, but for ``fields``; None removes one."""
    whole = {"name": "web", "image": "registry.example/shop:1", "ports": PORTS, **GOOD_PROBES, **fields}
    return {key: value for key, value in copy.deepcopy(whole).items() if value is not None}


def deployment(
    web: Data | None = None,
    *others: Data,
    pod: Mapping[str, Any] | None = None,
    spec: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    name: str = "shop",
    kind: str = "Deployment",
) -> Data:
    metadata: Data = {"labels": {"app": name, **(labels or {})}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": metadata,
                "spec": {"containers": [web or container(), *others], **(pod or {})},
            },
            **(spec or {}),
        },
    }


def service(
    name: str = "shop", *, annotations: Mapping[str, str] | None = None, port: Any = "http", **spec: Any
) -> Data:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, **({"annotations": dict(annotations)} if annotations else {})},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": port}], **spec},
    }


def ingress(kind: str | None = "nginx", paths: Iterable[str] = ("/",), name: str = "shop", **annotations: str) -> Data:
    """annotations: with ``__`` for ``/`` and ``_`` for ``-``, after the controller's own prefix."""
    prefixes = {
        "nginx": "nginx.ingress.kubernetes.io/", "f5": "nginx.org/", "alb": "alb.ingress.kubernetes.io/", "haproxy": "haproxy.org/",
        "contour": "projectcontour.io/", "kong": "konghq.com/", "gce": "", "traefik": "traefik.ingress.kubernetes.io/",
    }  # fmt: skip
    keys = {prefixes[kind or "nginx"] + key.replace("_", "-"): value for key, value in annotations.items()}
    if kind == "f5":
        keys.setdefault("nginx.org/client-max-body-size", "1m")
    if kind == "gce":
        keys["kubernetes.io/ingress.class"] = "gce"
    spec: Data = {
        "rules": [
            {
                "host": "shop.example",
                "http": {
                    "paths": [
                        {
                            "path": path,
                            "pathType": "Prefix",
                            "backend": {"service": {"name": name, "port": {"number": 80}}},
                        }
                        for path in paths
                    ]
                },
            }
        ]
    }
    if kind not in ("gce", None):
        spec["ingressClassName"] = "nginx" if kind == "f5" else kind
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": keys},
        "spec": spec,
    }


#: Kubernetes' own kinds; others are known by their kind alone.
_GROUPS = {
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
}


def thing(kind: str, spec: Any = None, *, group: str | None = None, name: str = "shop", **fields: Any) -> Data:
    """Return any other object."""
    version = group or _GROUPS.get(kind, "example.com/v1")
    found: Data = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}
    if spec is not None:
        found["spec"] = spec
    return found


def config(name: str = "shop", **data: str) -> Data:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {key.replace("__", ".").replace("_", "-"): value for key, value in data.items()},
    }


def text_of(documents: Iterable[Data] | Data) -> str:
    items = [documents] if isinstance(documents, dict) else list(documents)
    return "---\n".join(yaml.dump(item, Dumper=_Whole, sort_keys=False, width=1000) for item in items)


class _Whole(yaml.SafeDumper):
    """Without anchors: cases share their dictionaries, manifests do not."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Seen(NamedTuple):
    """A finding in short: the field without the part that all containers share."""

    id: str
    severity: str
    object: str
    field: str


def examined(text: str, stream_path: str | None = None) -> list[Finding]:
    loaded = Loaded()
    take("test.yaml", text, loaded)
    return examine(Model(loaded.objects, stream_path))


def seen(documents: Iterable[Data] | Data | str, stream_path: str | None = None) -> list[Seen]:
    text = documents if isinstance(documents, str) else text_of(documents)
    return [
        Seen(finding.rule.id, finding.severity.word, finding.object.id, finding.place.field)
        for finding in examined(text, stream_path)
    ]
