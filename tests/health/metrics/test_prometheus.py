"""A real Prometheus with the configurations of deploy/prometheus, over a running service."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from sse.settings import Settings
from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.server import ROOT, Server
from tests.support.wait import eventually

HERE = ROOT / "deploy" / "prometheus"
OPERATOR = ROOT / "k8s" / "variants" / "monitoring" / "prometheusrule.yaml"
DASHBOARD = ROOT / "k8s" / "variants" / "monitoring" / "dashboard.json"


class Prometheus:
    """Prometheus with a configuration; ``get`` asks its API."""

    def __init__(self, folder: Path, config: str) -> None:
        (folder / "rules.yaml").write_text((HERE / "rules.yaml").read_text())
        self._config = folder / "prometheus.yaml"
        self._config.write_text(config)
        self._folder = folder
        self._reserved = ReservedPort()
        self._program = require_program("prometheus", "prometheus")

    def __enter__(self) -> Prometheus:
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address=127.0.0.1:{self._reserved.number}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self._folder,
            )
        reaper.watch(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        reaper.release(self._process.pid)
        self._reserved.release()

    def get(self, path: str, **parameters: str) -> Any:
        """Return the answer's data, or None while Prometheus does not answer or refuses the query."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._reserved.number, timeout=5)) as connection:
            try:
                connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
                answer = json.loads(connection.getresponse().read())
            except (OSError, ValueError):
                assert self._process.poll() is None, (self._folder / "output").read_text()[-2000:]
                return None
        return answer["data"] if answer["status"] == "success" else None

    def series(self, query: str) -> list[dict[str, str]]:
        data = self.get("query", query=query)
        return [one["metric"] for one in data["result"]] if data else []


def replaced(text: str, **replacements: str) -> str:
    """Replace what stands under these keys; each must be there once."""
    for key, value in replacements.items():
        text, times = re.subn(rf"(?m)^(\s*{key}: ).*$", rf"\g<1>{value}", text)
        assert times == 1, f"{key} is there {times} times"
    return text


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with Server() as server:
        yield server


QUICK = {"scrape_interval": "500ms", "scrape_timeout": "400ms", "evaluation_interval": "500ms"}


def with_targets(name: str, targets: list[dict[str, Any]], folder: Path) -> str:
    """Return a configuration whose targets come from a file: here is no API server, and no name server."""
    (folder / "targets.json").write_text(json.dumps(targets))
    text, times = re.subn(
        r"(?s)    (?:kubernetes|dns)_sd_configs:\n.*?(?=    relabel_configs:)",
        f"    file_sd_configs: [{{files: ['{folder}/targets.json']}}]\n",
        (HERE / name).read_text(),
    )
    assert times == 1
    return replaced(text, **QUICK)


@pytest.fixture(scope="module")
def by_hosts(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("hosts")
    targets = [{"targets": [f"127.0.0.1:{service.health_port}"]}]
    with Prometheus(folder, with_targets("hosts.yaml", targets, folder)) as running:
        eventually(lambda: running.series("sse_streams"), 30)
        yield running


def test_hosts_are_labelled_as_the_alerts_expect(service: Server, by_hosts: Prometheus) -> None:
    found = by_hosts.series("health_workers")
    assert {(one["namespace"], one["pod"]) for one in found} == {("headwater", f"127.0.0.1:{service.health_port}")}


def test_the_configuration_for_hosts_is_valid_with_its_rules() -> None:
    """The other one needs a promtool with Kubernetes in it, which Debian's has not."""
    command = [require_program("promtool", "prometheus"), "check", "config", str(HERE / "hosts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout
    (discovery,) = yaml.safe_load((HERE / "hosts.yaml").read_text())["scrape_configs"][0]["dns_sd_configs"]
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(discovery["names"]) <= set(compose)
    assert discovery["port"] == Settings().health_port


def test_pods_are_scraped_once_and_on_their_health_port(service: Server, tmp_path: Path) -> None:
    """What the API server would tell comes from a file: a pod's two ports, with the labels of the role `pod`."""
    (discovery,) = yaml.safe_load((HERE / "kubernetes.yaml").read_text())["scrape_configs"][0]["kubernetes_sd_configs"]
    assert discovery["role"] == "pod" and [one["role"] for one in discovery["selectors"]] == ["pod"]
    ports = {"http": service.port, "health": service.health_port}
    pod = {"__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_name": "headwater-1"}
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": pod | {"__meta_kubernetes_pod_container_port_name": name}}
        for name, port in ports.items()
    ]
    with Prometheus(tmp_path, with_targets("kubernetes.yaml", targets, tmp_path)) as running:
        eventually(lambda: running.series("sse_streams"), 30)
        (target,) = running.get("targets", state="active")["activeTargets"]
        assert target["scrapeUrl"] == f"http://127.0.0.1:{service.health_port}/metrics"
        assert {key: target["labels"][key] for key in ("namespace", "pod", "job")} == {
            "namespace": "shop",
            "pod": "headwater-1",
            "job": "headwater",
        }


def test_the_selector_finds_the_pods_of_the_manifests_and_of_the_chart() -> None:
    (discovery,) = yaml.safe_load((HERE / "kubernetes.yaml").read_text())["scrape_configs"][0]["kubernetes_sd_configs"]
    wanted = dict(one.split("=") for one in discovery["selectors"][0]["label"].split(","))
    deployment = yaml.safe_load((ROOT / "k8s" / "50-deployment.yaml").read_text())
    assert wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_the_rules_are_the_operators() -> None:
    operator = OPERATOR.read_text()
    spec = operator[operator.index("\nspec:\n") + len("\nspec:\n") :]
    wanted = "".join(line.removeprefix("  ") for line in spec.splitlines(keepends=True))
    made = (HERE / "rules.yaml").read_text()
    assert made[made.index("groups:") :] == wanted, "run the command in the first lines of deploy/prometheus/rules.yaml"


def _panels() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [one.replace("$namespace", ".*").replace("$__rate_interval", "2m") for one in found]


def test_prometheus_can_evaluate_every_alert_and_every_panel(by_hosts: Prometheus) -> None:
    groups = yaml.safe_load((HERE / "rules.yaml").read_text())["groups"]
    alerts = [rule["expr"] for group in groups for rule in group["rules"]]
    assert len(alerts) >= 12 and len(_panels()) >= 10
    for query in (*alerts, *_panels()):
        assert by_hosts.get("query", query=query) is not None, query
    loaded = by_hosts.get("rules", type="alert")["groups"]
    assert sum(len(group["rules"]) for group in loaded) == len(alerts)
    assert [rule["name"] for group in loaded for rule in group["rules"] if rule["state"] == "firing"] == []


def test_most_panels_show_something(by_hosts: Prometheus) -> None:
    """Counters have a rate from the second scrape on. What needs kube-state-metrics, or a histogram with values, is empty."""
    shown = eventually(lambda: [one for one in _panels() if by_hosts.series(one)][len(_panels()) // 2 :], 30)
    assert shown


def test_the_page_names_what_there_is() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text().partition("## Prometheus and Grafana\n")[2].partition("\n## ")[0]
    for name in re.findall(r"(?:deploy|k8s)/[\w/.-]+\w", page):
        assert (ROOT / name).exists(), name
    assert "twelve alerts" in page and (HERE / "rules.yaml").read_text().count("- alert: ") == 12
