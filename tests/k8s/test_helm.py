"""The Helm chart: it renders to the documents of k8s/ and of its variants, and refuses values that cannot work."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from sse.settings import Settings
from sse.version import VERSION
from tests.k8s.kubectl import helm
from tests.k8s.manifests import Document, built, find, plain, pod_spec, title
from tests.k8s.test_reasons import without_a_reason
from tests.k8s.test_schema import NEWEST, OLDEST, UNCHECKED
from tests.k8s.test_variants import WHOLE
from tests.support.kubelet.manifest import load_all
from tests.support.server import ROOT

CHART = ROOT / "deploy" / "helm" / "headwater"
SETS = sorted(path.stem for path in (CHART / "values").glob("*.yaml"))
#: The chart's own addition: a changed setting makes new pods. Plain files cannot know what was there before.
ADDED = "checksum/config"


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The machine's own settings and plugins must not matter; what is not there is empty.
    places = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HELM_PLUGINS", "KUBECONFIG")
    nowhere = {name: str(CHART / "nowhere") for name in places}
    return subprocess.run(
        [helm(), *arguments], capture_output=True, text=True, timeout=60, check=False, env=os.environ | nowhere
    )


def template(*arguments: str, release: str = "headwater") -> str:
    done = run_helm("template", release, str(CHART), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def rendered(values: str | None = None) -> tuple[Document, ...]:
    """The documents of the chart's own values, or with one of the sets on top."""
    return tuple(load_all(template(*(["-f", str(CHART / "values" / f"{values}.yaml")] if values else []))))


def _by_title(documents: Any) -> dict[str, Document]:
    named = {title(one): one for one in documents}
    assert len(named) == len(documents)
    return named


def _without_addition(documents: dict[str, Document]) -> dict[str, Document]:
    """The documents without the chart's one addition, which must be there."""
    copy: dict[str, Document] = json.loads(json.dumps(documents))
    metadata = copy["Deployment/headwater"]["spec"]["template"]["metadata"]
    assert re.fullmatch(r"[0-9a-f]{64}", metadata["annotations"].pop(ADDED))
    if not metadata["annotations"]:
        del metadata["annotations"]
    return copy


def test_it_renders_to_the_plain_files_document_by_document() -> None:
    ours, theirs = _without_addition(_by_title(rendered())), _by_title(plain())
    assert ours.keys() == theirs.keys()
    for name, document in theirs.items():
        assert ours[name] == document, name


@pytest.mark.parametrize("values", SETS)
def test_a_set_of_values_renders_to_the_variant_of_its_name(values: str) -> None:
    ours, theirs = _without_addition(_by_title(rendered(values))), _by_title(built(values))
    if values not in WHOLE:
        theirs |= _by_title(plain())
    assert ours.keys() == theirs.keys()
    for name, document in theirs.items():
        assert ours[name] == document, name


def test_helm_lint_finds_nothing() -> None:
    for values in (None, *SETS):
        more = ["--values", str(CHART / "values" / f"{values}.yaml")] if values else []
        done = run_helm("lint", "--strict", str(CHART), *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "[WARNING]" not in done.stdout and "[ERROR]" not in done.stdout


def test_a_packaged_chart_renders_the_same(tmp_path: Path) -> None:
    """The alerts and the dashboard are links in the repository, and files in the package."""
    done = run_helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob(f"headwater-{VERSION}.tgz")
    values = f"--values={CHART / 'values' / 'monitoring.yaml'}"
    packaged = run_helm("template", "headwater", str(package), values)
    assert packaged.stdout == template(values) and "HeadwaterCanaryOld" in packaged.stdout


def test_another_release_in_the_namespace_shares_no_name_and_no_selector() -> None:
    everything = (CHART / "values" / f"{name}.yaml" for name in ("monitoring", "gateway-api", "autoscaling"))
    documents = load_all(template(*(f"--values={path}" for path in everything), release="shop"))
    assert {one["metadata"]["name"].startswith("shop-headwater") for one in documents} == {True}

    def selectors(place: Any) -> list[dict[str, str]]:
        if isinstance(place, list):
            return [found for one in place for found in selectors(one)]
        if not isinstance(place, dict):
            return []
        own = [place["matchLabels"]] if "matchLabels" in place else []
        return own + [found for one in place.values() for found in selectors(one)]

    found = [one for one in selectors(documents) if "kubernetes.io/metadata.name" not in one]
    assert len(found) >= 10
    assert {one["app.kubernetes.io/name"] for one in found} == {"shop-headwater"}
    assert find(documents, "ConfigMap", "shop-headwater")["data"]["SSE_LOG"] == "redis://shop-headwater-redis:6379/0"


@pytest.mark.parametrize(
    ("delay", "window", "runs"),
    [("5", "15", None), ("0", "0", "0"), ("30", "29.5", "60"), ("2.25", "60", "62.5"), (None, None, None), ("5", "15", "590")],
)
def test_the_grace_period_follows_from_the_drain_and_the_runs(
    delay: str | None, window: str | None, runs: str | None
) -> None:
    given = {"SSE_DRAIN_DELAY": delay, "SSE_DRAIN_WINDOW": window, "SSE_RUN_GRACE": runs}
    deployment = find(load_all(template("--set-json", f"config={json.dumps(given)}")), "Deployment", "headwater")
    settings = Settings(**{name.lower(): value for name, value in given.items() if value is not None})
    assert pod_spec(deployment)["terminationGracePeriodSeconds"] == settings.termination_grace


def test_a_changed_setting_makes_new_pods_and_nothing_else_does() -> None:
    def mark(*arguments: str) -> str:
        deployment = find(load_all(template(*arguments)), "Deployment", "headwater")
        value: str = deployment["spec"]["template"]["metadata"]["annotations"][ADDED]
        return value

    assert mark() == mark("--set", "replicas=3") != mark("--set-string", "config.SSE_HEARTBEAT=10")


REFUSED = [
    pytest.param(["--set", "replcas=3"], "replcas", id="a value that it does not know"),
    pytest.param(["--set", "config.SSE_HEARTBEAT=10"], "config/SSE_HEARTBEAT|config.SSE_HEARTBEAT", id="a number as a setting"),
    pytest.param(["--set", "image.tag=latest"], "tag", id="a tag that moves"),
    pytest.param(["--set", "log.kind=sqlite"], "set replicas to 1", id="one file for two pods"),
    pytest.param(["--set", "log.kind=external"], "log.externalEgress", id="a log that the policy forbids"),
    pytest.param(["--set", "config.SSE_LOG=redis://r"], "set log.kind to external", id="two logs"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_values_that_cannot_work_are_refused_in_words(arguments: list[str], words: str) -> None:
    done = run_helm("template", "headwater", str(CHART), *arguments)
    assert done.returncode != 0
    assert re.search(words, done.stderr), done.stderr


def test_an_external_log_brings_no_redis_and_a_way_through_the_policy() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"protocol": "TCP", "port": 6380}]}
    values = {"log": {"kind": "external", "externalEgress": [rule]}, "config": {"SSE_LOG": "rediss://redis.example.com:6380/0"}}
    documents = load_all(template(*(f"--set-json={name}={json.dumps(value)}" for name, value in values.items())))
    assert not [one for one in documents if "redis" in one["metadata"]["name"]]
    assert rule in find(documents, "NetworkPolicy", "headwater")["spec"]["egress"]


OPTIONS = {
    "image": {"repository": "registry.example.com/headwater", "pullSecrets": [{"name": "registry"}]},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "streams", "operator": "Exists"}],
    "priorityClassName": "streams",
    "podAnnotations": {"sidecar.istio.io/inject": "true"},
    "volumes": [{"name": "keys", "secret": {"secretName": "headwater-keys"}}],
    "volumeMounts": [{"name": "keys", "mountPath": "/etc/keys", "readOnly": True}],
    "redis": {"storageClassName": "fast"},
    "ingress": {"enabled": True, "tlsSecretName": "tls", "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "1m"}},
}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_api_server_accepts_what_the_options_render(version: str) -> None:
    arguments = [f"--set-json={name}={json.dumps(value)}" for name, value in OPTIONS.items()]
    text = template(*arguments, "--kube-version", version)
    for document in load_all(text):
        if (document["apiVersion"], document["kind"]) not in UNCHECKED:
            kubernetes_validate.validate(document, version, strict=True)
    pod = pod_spec(find(load_all(text), "Deployment", "headwater"))
    assert pod["containers"][0]["image"] == f"registry.example.com/headwater:{VERSION}"
    ingress = find(load_all(text), "Ingress", "headwater")["metadata"]["annotations"]
    assert ingress["nginx.ingress.kubernetes.io/proxy-body-size"] == "1m", "the user's value wins"


def test_the_chart_has_the_version_of_the_service() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def _without_comment(text: str) -> list[str]:
    """The lines that set a value, or open a group, and have no comment above. A group's first line may have its comment
    inside; the lines of a text are one value."""
    lines, found, in_text = text.splitlines(), [], False
    for index, line in enumerate(lines):
        in_text = in_text and (line.startswith("  ") or not line)
        if in_text or not re.match(r"^\s*\w+:", line):
            continue
        in_text = line.endswith("|")
        is_group = line.endswith(":")
        if not is_group and not lines[index - 1].lstrip().startswith("#"):
            found.append(f"{index + 1}: {line.strip()}")
    return found


@pytest.mark.parametrize("name", ["values.yaml", *(f"values/{name}.yaml" for name in SETS)])
def test_every_value_has_its_reason_on_the_line_above(name: str) -> None:
    text = (CHART / name).read_text()
    assert _without_comment(text) == [] and list(without_a_reason(text)) == []
    comments = [line.strip() for line in text.splitlines() if line.lstrip().startswith("# ") and len(line.strip()) > 60]
    assert len(comments) == len(set(comments))


def test_a_value_without_a_reason_is_found() -> None:
    assert _without_comment("# Why.\na: 1\nb:\n  c: 2\n") == ["4: c: 2"]


def test_every_value_is_in_the_schema() -> None:
    def properties(values: Any, schema: Any, path: str) -> list[str]:
        known = schema.get("properties")
        if known is None or not isinstance(values, dict):
            return []
        missing = [f"{path}{name}" for name in values if name not in known]
        inner = [properties(value, known[name], f"{path}{name}.") for name, value in values.items() if name in known]
        return missing + [one for part in inner for one in part]

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert properties(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "") == []


def test_the_settings_of_the_chart_exist() -> None:
    names = set(yaml.safe_load((CHART / "values.yaml").read_text())["config"])
    assert names - {name.upper() for name in Settings.model_fields} == set()


def test_the_notes_name_the_address_and_the_secret() -> None:
    done = run_helm("install", "headwater", str(CHART), "--dry-run=client", "--namespace", "shop")
    assert done.returncode == 0, done.stderr
    assert "http://headwater.shop/events/" in done.stdout and "create secret generic headwater " in done.stdout


DOCS = (ROOT / "docs" / "kubernetes.md").read_text().partition("## With Helm\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^    helm (\S.*)$", DOCS, re.MULTILINE)


@pytest.mark.parametrize("command", [one for one in COMMANDS if not one.startswith("rollback")])
def test_a_command_in_the_docs_renders(command: str) -> None:
    """As a dry run, because there is no cluster; `upgrade` needs one, and `template` takes the same options."""
    _, *arguments = command.split()
    done = run_helm("template", *(str(ROOT / one) if one.startswith("deploy/") else one for one in arguments))
    assert done.returncode == 0, done.stderr


def test_the_docs_name_every_set_of_values() -> None:
    assert len(COMMANDS) == 4 and [name for name in SETS if f"`{name}`" not in DOCS] == []
