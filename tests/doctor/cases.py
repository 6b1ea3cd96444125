"""The form of the rules' cases: what a rule finds, where and how severe, and what it must not find."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doctor.manifests import container, deployment

POSITIVE: list[Any] = []
NEGATIVE: list[Any] = []


def finds(rule: str, case: str, documents: Any, where: str, severity: str, stream_path: str | None = None) -> None:
    POSITIVE.append(pytest.param(rule, documents, where, severity, stream_path, id=f"{rule} {case}"))


def silent(rule: str, case: str, documents: Any, stream_path: str | None = None) -> None:
    NEGATIVE.append(pytest.param(rule, documents, stream_path, id=f"{rule} {case}"))


def probe(path: str = "/healthz", port: Any = 8080, **numbers: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}, **numbers}


def run(*command: str, **numbers: Any) -> dict[str, Any]:
    return {"exec": {"command": list(command)}, **numbers}


def web(**fields: Any) -> dict[str, Any]:
    return deployment(container(**fields))


ONE_PORT = [{"name": "http", "containerPort": 8080}]
SLIM, ALPINE, DISTROLESS = ("python:3.12-slim-bookworm", "registry.example/shop:1-alpine", "gcr.io/distroless/static-debian12:nonroot")
GUNICORN = ["gunicorn", "-b", "0.0.0.0:8080", "shop:app"]
UVICORN = ["uvicorn", "shop:app", "--timeout-graceful-shutdown", "20"]
MOUNTED = {"command": ["gunicorn", "-c", "/etc/gunicorn/gunicorn.conf.py", "shop:app"], "volumeMounts": [{"name": "config", "mountPath": "/etc/gunicorn"}]}
VOLUME = {"volumes": [{"name": "config", "configMap": {"name": "shop"}}]}
BEATS = [{"name": "HEARTBEAT_SECONDS", "value": "15"}]
