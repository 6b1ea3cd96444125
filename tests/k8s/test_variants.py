"""Every variant builds, says when to use it, and changes what it should."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from sse.settings import Settings
from sse.settings.errors import is_live
from sse.settings.file import parse
from tests.k8s.manifests import K8S, VARIANTS, built, find, pod_spec, title, variants
from tests.k8s.policy import quantity
from tests.k8s.test_schema import UNCHECKED

EXPECTED = (
    "autoscaling",
    "base",
    "exec-probe",
    "gateway-api",
    "gitops",
    "ingress-nginx",
    "istio",
    "live-settings",
    "monitoring",
    "runs",
    "single",
    "vpa",
)
#: These contain the base, so that one command applies all; the others are added to it.
WHOLE = ("autoscaling", "exec-probe", "istio", "live-settings", "runs", "single")


def test_the_variants_are_these() -> None:
    assert tuple(variants()) == EXPECTED


@pytest.mark.parametrize("variant", EXPECTED)
def test_it_builds_and_every_document_has_a_unique_name(variant: str) -> None:
    names = [title(document) for document in built(variant)]
    assert names and len(set(names)) == len(names)


@pytest.mark.parametrize("variant", EXPECTED)
def test_it_names_no_namespace_so_that_it_can_be_applied_to_any(variant: str) -> None:
    assert all("namespace" not in document["metadata"] for document in built(variant))


@pytest.mark.parametrize("variant", EXPECTED)
def test_its_first_lines_say_when_to_use_it(variant: str) -> None:
    lines = (VARIANTS / variant / "kustomization.yaml").read_text().splitlines()
    assert all(line.startswith("# ") for line in lines[:3])


@pytest.mark.parametrize("variant", EXPECTED)
def test_it_uses_all_of_its_files(variant: str) -> None:
    text = (VARIANTS / variant / "kustomization.yaml").read_text()
    files = {path.name for path in (VARIANTS / variant).iterdir()} - {"kustomization.yaml"}
    assert {name for name in files if name not in text} == set()


def test_the_base_is_the_plain_files_one_after_the_other() -> None:
    made = (VARIANTS / "base" / "headwater.yaml").read_text()
    plain = "".join(path.read_text() for path in sorted(K8S.glob("*.yaml")))
    assert made == plain, "run: cat k8s/*.yaml > k8s/variants/base/headwater.yaml"


def test_the_plain_files_have_no_kustomization_which_apply_would_refuse() -> None:
    assert not [path for path in K8S.iterdir() if path.name.lower().startswith("kustomization")]
    assert [path for path in K8S.glob("*.yaml") if not re.match(r"\d\d-", path.name)] == []


@pytest.mark.parametrize("variant", WHOLE)
def test_a_variant_that_contains_the_base_has_all_of_it(variant: str) -> None:
    gone = {title(one) for one in built("base")} - {title(one) for one in built(variant)}
    redis = {f"{kind}/headwater-redis" for kind in ("ConfigMap", "NetworkPolicy", "Service", "StatefulSet")}
    assert gone == (redis if variant == "single" else set())


def _container(variant: str) -> dict[str, Any]:
    container: dict[str, Any] = pod_spec(find(built(variant), "Deployment", "headwater"))["containers"][0]
    return container


def test_single_runs_one_pod_on_a_file_and_ends_it_before_the_next() -> None:
    documents = built("single")
    deployment = find(documents, "Deployment", "headwater")["spec"]
    data = find(documents, "ConfigMap", "headwater")["data"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    path = data["SSE_LOG"].removeprefix("sqlite:///")
    mounts = {mount["mountPath"]: mount["name"] for mount in _container("single")["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_spec(find(documents, "Deployment", "headwater"))["volumes"]}
    claim = volumes[mounts[path.rpartition("/")[0]]]["persistentVolumeClaim"]["claimName"]
    find(documents, "PersistentVolumeClaim", claim)
    assert "SSE_REDIS_PREFIX" not in data
    settings = Settings(**{name.lower(): value for name, value in data.items()})
    pod = pod_spec(find(documents, "Deployment", "headwater"))
    assert pod["terminationGracePeriodSeconds"] == settings.termination_grace


def test_exec_probe_gives_its_command_time_to_say_what_is_wrong() -> None:
    probe = _container("exec-probe")["readinessProbe"]
    command = probe["exec"]["command"]
    assert "httpGet" not in probe
    assert command[:3] == ["python", "-m", "health.probe"]
    own = float(command[command.index("--timeout") + 1])
    assert own < probe["timeoutSeconds"] < probe["periodSeconds"]
    assert _container("exec-probe")["livenessProbe"] == _container("base")["livenessProbe"]


def test_autoscaling_leaves_the_number_of_pods_to_the_autoscaler() -> None:
    documents = built("autoscaling")
    assert "replicas" not in find(documents, "Deployment", "headwater")["spec"]
    spec = find(documents, "HorizontalPodAutoscaler", "headwater")["spec"]
    (metric,) = spec["metrics"]
    # If one of two pods leaves, the other can take its streams.
    assert quantity(metric["pods"]["target"]["averageValue"]) * 2 <= Settings().sse_max_streams
    assert spec["minReplicas"] >= find(built("base"), "Deployment", "headwater")["spec"]["replicas"]
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_gitops_does_not_change_the_number_of_pods() -> None:
    """`replicas` is ignored in comparisons, and in a sync, which would otherwise set it."""
    spec = find(built("gitops"), "ApplicationSet", "headwater")["spec"]["template"]["spec"]
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(spec["syncPolicy"]["syncOptions"])
    (ignored,) = spec["ignoreDifferences"]
    assert (ignored["kind"], ignored["jsonPointers"]) == ("Deployment", ["/spec/replicas"])


def test_vpa_only_advises() -> None:
    (document,) = built("vpa")
    assert document["spec"]["updatePolicy"]["updateMode"] == "Off"
    target = document["spec"]["targetRef"]
    find(built("base"), target["kind"], target["name"])


@pytest.mark.parametrize("variant", [name for name in WHOLE if name != "istio"])
def test_a_variant_that_contains_the_base_needs_no_custom_resources(variant: str) -> None:
    """An apply fails with a kind that the cluster does not know. (A mesh always has Istio's kinds.)"""
    assert [title(one) for one in built(variant) if (one["apiVersion"], one["kind"]) in UNCHECKED] == []


def test_live_settings_are_mounted_as_a_folder_and_name_only_live_settings() -> None:
    documents = built("live-settings")
    (env,) = _container("live-settings")["env"]
    folder, _, key = env["value"].rpartition("/")
    mounts = {mount["mountPath"]: mount for mount in _container("live-settings")["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod_spec(find(documents, "Deployment", "headwater"))["volumes"]}
    assert env["name"] == "SSE_CONFIG_FILE" and "/tmp" in mounts
    assert "subPath" not in mounts[folder]
    live = find(documents, "ConfigMap", volumes[mounts[folder]["name"]]["configMap"]["name"])
    assert not live.get("immutable")
    file = parse(env["value"], live["data"][key].encode())
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    assert len(file.values) >= 3 and all(is_live(fields[name]) for name in file.values)
    plain = find(documents, "ConfigMap", "headwater")["data"]
    Settings.read({name.lower(): value for name, value in plain.items()}, file)


def test_ingress_nginx_waits_for_several_heartbeats() -> None:
    notes = find(built("ingress-nginx"), "Ingress", "headwater")["metadata"]["annotations"]
    notes = {name.removeprefix("nginx.ingress.kubernetes.io/"): value for name, value in notes.items()}
    assert (notes["proxy-buffering"], notes["proxy-http-version"]) == ("off", "1.1")
    assert int(notes["proxy-read-timeout"]) >= 3 * Settings().sse_heartbeat
    assert int(notes["proxy-body-size"].removesuffix("m")) << 20 >= Settings().sse_max_batch_bytes


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_gateway_api_limits_only_other_requests_and_above_the_services_own_time_out() -> None:
    streams, rest = find(built("gateway-api"), "HTTPRoute", "headwater")["spec"]["rules"]
    assert {_seconds(value) for value in streams["timeouts"].values()} == {0}
    assert streams["matches"] == [{"path": {"type": "PathPrefix", "value": "/events"}, "method": "GET"}]
    assert _seconds(rest["timeouts"]["request"]) > Settings().sse_read_timeout


def test_istio_does_not_limit_streams_and_its_sidecar_outlives_them() -> None:
    documents = built("istio")
    streams, rest = find(documents, "VirtualService", "headwater")["spec"]["http"]
    assert _seconds(streams["timeout"]) == 0
    assert _seconds(rest["timeout"]) > Settings().sse_read_timeout
    deployment = find(documents, "Deployment", "headwater")
    notes = deployment["spec"]["template"]["metadata"]["annotations"]
    proxy = yaml.safe_load(notes["proxy.istio.io/config"])
    drain = _seconds(proxy["terminationDrainDuration"])
    assert Settings().graceful_timeout <= drain < pod_spec(deployment)["terminationGracePeriodSeconds"]
    assert notes["sidecar.istio.io/rewriteAppHTTPProbers"] == "true"
    idle = find(documents, "DestinationRule", "headwater")["spec"]["trafficPolicy"]["connectionPool"]["http"]
    assert _seconds(idle["idleTimeout"]) < Settings().sse_idle_timeout
