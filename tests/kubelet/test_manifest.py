from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubelet import Exec, HttpGet, Kind, ManifestError, PodSpec, TcpSocket, pod_from_manifest
from tests.support.kubelet.manifest import expand, load_documents

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: headwater}
spec:
  replicas: 2
  template:
    spec:
      terminationGracePeriodSeconds: 45
      containers:
        - name: headwater
          command: [gunicorn, -b, "0.0.0.0:8080", "$(EXTRA)", wsgi:app]
          ports:
            - {name: http, containerPort: 8080}
            - {name: health, containerPort: 8081}
          envFrom:
            - configMapRef: {name: settings}
            - secretRef: {name: keys, optional: true}
            - configMapRef: {name: more}
              prefix: MORE_
          env:
            - {name: HOST, value: 0.0.0.0}
            - {name: SSE_RETRY, value: "3000"}
            - {name: EXTRA, value: "--name=$(HOST)"}
            - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: CHOSEN, valueFrom: {configMapKeyRef: {name: more, key: colour}}}
            - {name: ABSENT, valueFrom: {secretKeyRef: {name: keys, key: none, optional: true}}}
          startupProbe:
            httpGet: {path: /startupz, port: health}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            tcpSocket: {port: 8080}
            initialDelaySeconds: 5
            timeoutSeconds: 3
            terminationGracePeriodSeconds: 20
          readinessProbe:
            exec: {command: [python, -m, health.probe, --url, "http://127.0.0.1:8080/events/_canary"]}
            successThreshold: 2
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {HEALTH_PORT: "8081", SSE_RETRY: "1000", WORKERS: "2", TARGET_PORT: "9999"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: more}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {SSE_PUBLISH_KEY: c2VjcmV0}
stringData: {WORKERS: "4"}
"""


def documents(text: str = DEPLOYMENT) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def read(docs: list[dict[str, Any]] | None = None, **options: Any) -> PodSpec:
    ports = itertools.count(40001)
    return pod_from_manifest(docs or documents(), free_port=lambda: next(ports), **options)


def container(docs: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = docs[0]["spec"]["template"]["spec"]["containers"][0]
    return found


def test_the_environment_is_assembled_as_by_the_kubelet() -> None:
    assert read().env == {
        "HOST": "0.0.0.0",
        "SSE_RETRY": "3000",  # env wins over envFrom
        "WORKERS": "4",  # a later source wins over an earlier one
        "MORE_colour": "blue",
        "EXTRA": "--name=0.0.0.0",
        "POD": "headwater-local",
        "CHOSEN": "blue",
        "SSE_PUBLISH_KEY": "secret",
        "TARGET_PORT": "9999",
        "HEALTH_PORT": "40002",  # follows its port
        "PORT": "40001",  # left to its default by the manifest
    }


def test_command_ports_and_probes_follow_the_local_ports() -> None:
    spec = read()
    assert spec.command == ("gunicorn", "-b", "0.0.0.0:40001", "--name=0.0.0.0", "wsgi:app")
    assert spec.ports == {"http": 40001, "health": 40002}
    assert spec.probes[Kind.STARTUP].action == HttpGet(40002, "/startupz")
    assert spec.probes[Kind.LIVENESS].action == TcpSocket(40001)
    url = "http://127.0.0.1:40001/events/_canary"
    assert spec.probes[Kind.READINESS].action == Exec(("python", "-m", "health.probe", "--url", url))


def test_numbers_default_to_kubernetes_defaults() -> None:
    spec = read()
    startup, liveness, readiness = (spec.probes[kind] for kind in Kind)
    assert (startup.period, startup.failure_threshold, startup.timeout) == (1, 60, 1)
    assert (liveness.initial_delay, liveness.period, liveness.timeout, liveness.grace) == (5, 10, 3, 20)
    assert (readiness.success_threshold, readiness.failure_threshold, readiness.grace) == (2, 3, None)
    assert spec.grace == 45


def test_the_default_grace_period_is_30_seconds() -> None:
    docs = documents()
    del docs[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert read(docs).grace == 30


def test_a_test_may_give_the_images_command_and_override_the_environment() -> None:
    docs = documents()
    del container(docs)["command"]
    container(docs)["args"] = ["--port=$(PORT)"]
    spec = read(docs, command=["serve"], env={"SSE_LOG": "memory:", "HOST": "127.0.0.1"})
    assert spec.command == ("serve", "--port=40001")
    assert (spec.env["SSE_LOG"], spec.env["HOST"]) == ("memory:", "127.0.0.1")


def test_a_directory_of_files_is_read_as_kubectl_does(tmp_path: Path) -> None:
    for number, document in enumerate(documents()):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "notes.txt").write_text("not: [yaml")
    (tmp_path / "variants").mkdir()
    assert len(load_documents(tmp_path)) == 4
    assert read() == pod_from_manifest(tmp_path, free_port=itertools.count(40001).__next__)


def _change(path: str, value: Any) -> Any:
    def change(docs: list[dict[str, Any]]) -> None:
        target: Any = container(docs)
        *steps, last = path.split("/")
        for step in steps:
            target = target[int(step) if step.isdecimal() else step]
        if value is None:
            del target[last]
        else:
            target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(_change("livenessProbe/tcpSocket/port", "nope"), "no port 'nope'", id="an unknown port"),
        pytest.param(_change("livenessProbe/timeoutSecond", 3), "timeoutSecond", id="a misspelt field"),
        pytest.param(_change("livenessProbe/periodSeconds", 0), "minimum is 1", id="a period of 0"),
        pytest.param(_change("livenessProbe/periodSeconds", "5"), "minimum is 1", id="a period that is a string"),
        pytest.param(_change("livenessProbe/successThreshold", 2), "must be 1", id="liveness successes"),
        pytest.param(
            _change("readinessProbe/terminationGracePeriodSeconds", 5), "refused", id="a grace period for readiness"
        ),
        pytest.param(_change("livenessProbe/tcpSocket", None), "one of httpGet", id="a probe without an action"),
        pytest.param(_change("livenessProbe/exec", {"command": ["x"]}), "one of httpGet", id="two actions"),
        pytest.param(_change("startupProbe/httpGet/scheme", "HTTPS"), "HTTPS", id="HTTPS"),
        pytest.param(_change("env/0/value", 8080), "must be a string", id="an unquoted number"),
        pytest.param(_change("envFrom/0/configMapRef/name", "gone"), "gone is missing", id="a missing ConfigMap"),
        pytest.param(_change("env/4/valueFrom/configMapKeyRef/key", "x"), "no key x", id="a missing key"),
        pytest.param(_change("env/3/valueFrom", {"other": {}}), "not known", id="a source that is not known"),
        pytest.param(_change("command", None), "no command", id="no command"),
    ],
)
def test_a_manifest_that_cannot_be_run_is_an_error(change: Any, message: str) -> None:
    docs = documents()
    change(docs)
    with pytest.raises(ManifestError, match=message):
        read(docs)


def test_an_optional_secret_may_be_missing() -> None:
    docs = [doc for doc in documents() if doc["kind"] != "Secret"]
    spec = read(docs)
    assert "SSE_PUBLISH_KEY" not in spec.env
    assert spec.env["WORKERS"] == "2"


def test_the_workload_must_be_clear() -> None:
    docs = documents()
    second = documents()[0]
    second["metadata"]["name"] = "redis"
    with pytest.raises(ManifestError, match="there is: headwater, redis"):
        read([*docs, second])
    assert read([*docs, second], deployment="redis").name == "redis"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$A ${A}", "$A ${A}"),
        ("$(A", "$(A"),
    ],
)
def test_variables_are_expanded_as_documented(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected
