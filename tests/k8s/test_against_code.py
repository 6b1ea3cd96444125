"""Compares the manifests, the Dockerfile and nginx.conf with the code: names, ports, paths and arithmetic that exist in
two places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from health import hooks
from health.metrics.table import BOARD_ROWS, ROWS
from sse.events.wire import ResetReason
from sse.serve.gunicorn_conf import configuration
from sse.settings import Settings
from sse.streams.stream import CloseReason
from sse.version import VERSION
from tests.k8s.manifests import K8S, VARIANTS, built, find, plain, pod_spec
from tests.k8s.policy import budget, quantity
from tests.support.server import ROOT

NAMES = {name.upper() for name in Settings.model_fields}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()


def _settings() -> Settings:
    """Return the ConfigMap's settings, as the service reads them."""
    data = find(plain(), "ConfigMap", "headwater")["data"]
    return Settings(**{name.lower(): value for name, value in data.items()})


def _deployment() -> dict[str, Any]:
    spec: dict[str, Any] = find(plain(), "Deployment", "headwater")["spec"]
    return spec


def _pod() -> dict[str, Any]:
    return pod_spec(find(plain(), "Deployment", "headwater"))


def _container() -> dict[str, Any]:
    container: dict[str, Any] = _pod()["containers"][0]
    return container


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("variant", ["plain", "base", "single"])
def test_every_setting_in_the_configmap_exists_and_is_valid(variant: str) -> None:
    documents = plain() if variant == "plain" else built(variant)
    data = find(documents, "ConfigMap", "headwater")["data"]
    assert set(data) <= NAMES
    assert all(isinstance(value, str) for value in data.values())
    Settings(**{name.lower(): value for name, value in data.items()})


def test_settings_named_in_comments_exist() -> None:
    mentioned: dict[str, str] = {}
    for path in (*K8S.rglob("*.yaml"), ROOT / "Dockerfile", ROOT / "deploy" / "nginx.conf"):
        for name in re.findall(r"\b(?:SSE|HEALTH)_[A-Z_]+[A-Z]\b", path.read_text()):
            mentioned.setdefault(name, path.name)
    assert {name: where for name, where in mentioned.items() if name not in NAMES} == {}


def test_numbers_that_comments_give_for_settings_are_their_values() -> None:
    """`SSE_DRAIN_DELAY 5`, `SSE_IDLE_TIMEOUT (75 s)`, `SSE_MAX_STREAMS (10,000 …)`."""
    settings = _settings()
    wrong = []
    found = 0
    for path in (*K8S.rglob("*.yaml"), ROOT / "deploy" / "nginx.conf"):
        # A comment may be broken between the two.
        text = re.sub(r"\n\s*# ", " ", path.read_text())
        pattern = r"\b((?:SSE|HEALTH)_[A-Z_]+[A-Z]),? \(?(\d[\d,.]*\d|\d)( MiB)?"
        for name, number, unit in re.findall(pattern, text):
            found += 1
            value = float(number.replace(",", "")) * (2**20 if unit else 1)
            if value != getattr(settings, name.lower()) and path.parent.name not in ("single", "runs"):
                wrong.append((path.name, name, number))
    assert wrong == []
    assert found > 15, "the pattern does not find them any more"


def test_the_pod_listens_where_the_service_and_the_probes_can_reach_it() -> None:
    settings = _settings()
    assert settings.host in ("0.0.0.0", "::")
    ports = {port["name"]: port["containerPort"] for port in _container()["ports"]}
    assert ports == {"http": settings.port, "health": settings.health_port}


def test_without_the_secret_the_pod_starts_with_publishing_closed() -> None:
    settings = _settings()
    assert (settings.sse_auth, settings.sse_publish_key, settings.sse_jwt_key) == ("auto", None, None)
    (secret,) = (source["secretRef"] for source in _container()["envFrom"] if "secretRef" in source)
    assert secret == {"name": "headwater", "optional": True}
    assert "secretRef" in _container()["envFrom"][-1], "the Secret's SSE_LOG goes before the ConfigMap's"


def test_the_log_is_the_redis_of_these_files() -> None:
    url = re.fullmatch(r"redis://([a-z-]+):(\d+)/\d+", _settings().sse_log)
    assert url is not None
    service = find(plain(), "Service", url[1])["spec"]
    assert [str(port["port"]) for port in service["ports"]] == [url[2]]
    redis = pod_spec(find(plain(), "StatefulSet", url[1]))["containers"][0]
    assert [str(port["containerPort"]) for port in redis["ports"]] == [url[2]]


def test_redis_never_evicts_and_has_room_for_its_own_limit() -> None:
    text = find(plain(), "ConfigMap", "headwater-redis")["data"]["redis.conf"]
    config = dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert (config["maxmemory-policy"], config["appendonly"]) == ("noeviction", "yes")
    most = quantity(config["maxmemory"].removesuffix("mb") + "Mi")
    stateful = find(plain(), "StatefulSet", "headwater-redis")
    container = pod_spec(stateful)["containers"][0]
    assert quantity(container["resources"]["limits"]["memory"]) >= 2 * most
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    assert quantity(claim["spec"]["resources"]["requests"]["storage"]) >= 3 * most
    assert most >= 2048 * _settings().sse_retain_events


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_grace_period_covers_the_drain() -> None:
    assert _pod()["terminationGracePeriodSeconds"] >= _settings().termination_grace


@pytest.mark.parametrize("variant", ["autoscaling", "exec-probe", "istio", "single"])
def test_the_grace_period_of_a_variant_covers_its_drain(variant: str) -> None:
    documents = built(variant)
    data = find(documents, "ConfigMap", "headwater")["data"]
    settings = Settings(**{name.lower(): value for name, value in data.items()})
    grace = pod_spec(find(documents, "Deployment", "headwater"))["terminationGracePeriodSeconds"]
    assert grace >= settings.termination_grace


def test_the_probes_ask_the_health_port_for_existing_routes() -> None:
    from app import create_app

    rules = {rule.rule for rule in create_app(Settings(sse_log="memory:")).url_map.iter_rules()}
    asked = {name: _container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: ask["path"] for name, ask in asked.items()} == {
        "startup": "/startupz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {ask["path"] for ask in asked.values()} <= rules
    assert {ask["port"] for ask in asked.values()} == {"health"}


def _watchdog() -> int:
    return int(configuration(_settings(), hooks)["timeout"])


def test_the_kubelet_is_more_patient_than_gunicorn_and_than_the_checks_themselves() -> None:
    settings = _settings()
    liveness, readiness = _container()["livenessProbe"], _container()["readinessProbe"]
    assert budget(liveness) > _watchdog()
    assert liveness["timeoutSeconds"] > settings.health_loop_lag_max
    assert readiness["periodSeconds"] >= settings.health_canary_max_age
    assert _deployment()["minReadySeconds"] >= settings.health_canary_max_age


def test_a_rollout_is_reported_as_stuck_only_after_the_startup_budget() -> None:
    assert _deployment()["progressDeadlineSeconds"] > budget(_container()["startupProbe"])


def test_the_window_and_the_largest_batch_fit_into_the_memory() -> None:
    settings = _settings()
    memory = {name: quantity(_container()["resources"][name]["memory"]) for name in ("requests", "limits")}
    idle = 90 * 2**20
    assert memory["requests"] >= idle + settings.sse_window_bytes
    assert memory["limits"] >= idle + settings.sse_window_bytes + 4 * settings.sse_max_batch_bytes
    (tmp,) = (volume["emptyDir"] for volume in _pod()["volumes"] if volume["name"] == "tmp")
    assert quantity(tmp["sizeLimit"]) >= settings.sse_max_batch_bytes


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────

#: Not ours: kube-state-metrics.
FOREIGN = {"kube_pod_container_status_restarts_total"}


def _queries() -> Iterator[str]:
    (rule,) = yaml.safe_load_all((VARIANTS / "monitoring" / "prometheusrule.yaml").read_text())
    for group in rule["spec"]["groups"]:
        yield from (one["expr"] for one in group["rules"])
    dashboard = json.loads((VARIANTS / "monitoring" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["query"]["query"] for one in dashboard["templating"]["list"] if isinstance(one["query"], dict))
    yield (VARIANTS / "autoscaling" / "adapter-rule.yaml").read_text()


def test_alerts_and_dashboard_use_existing_metrics() -> None:
    ours = set(BOARD_ROWS) | {row.name for row in ROWS}
    ours |= {f"{row.name}_{part}" for row in ROWS if row.kind == "histogram" for part in ("bucket", "count", "sum")}
    asked = {name for query in _queries() for name in re.findall(r"\b(?:sse|health|kube)_[a-z_]+", query)}
    assert asked - FOREIGN - ours == set()
    assert len(asked) > 15


def test_the_autoscaler_uses_an_existing_metric() -> None:
    spec = find(built("autoscaling"), "HorizontalPodAutoscaler", "headwater")["spec"]
    names = {metric["pods"]["metric"]["name"] for metric in spec["metrics"]}
    assert names <= {row.name for row in ROWS if row.kind == "gauge"}


def test_alerts_name_existing_reasons() -> None:
    source = "".join(path.read_text() for path in (ROOT / "sse").rglob("*.py"))
    known = {
        "sse_streams_closed_total": set(CloseReason),
        "sse_resets_total": set(get_args(ResetReason)),
        # What Admission.admit returns.
        "sse_streams_refused_total": set(re.findall(r'reason = "([a-z-]+)"', source)),
    }
    asked = [
        (metric, reason)
        for query in _queries()
        for metric, reasons in re.findall(r'(\w+)\{reason=~"([^"]+)"', query)
        for reason in reasons.split("|")
    ]
    assert [(metric, reason) for metric, reason in asked if reason not in known[metric]] == []
    assert {metric for metric, _ in asked} == set(known)


def test_the_service_monitor_scrapes_a_port_of_the_service() -> None:
    (endpoint,) = find(built("monitoring"), "ServiceMonitor", "headwater")["spec"]["endpoints"]
    ports = {port["name"] for port in find(plain(), "Service", "headwater")["spec"]["ports"]}
    assert endpoint["port"] in ports
    assert int(endpoint["scrapeTimeout"].removesuffix("s")) < int(endpoint["interval"].removesuffix("s"))


# ── the image ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_image_has_the_version_of_the_project() -> None:
    assert _container()["image"] == f"headwater:{VERSION}"
    assert f"ARG VERSION={VERSION}\n" in DOCKERFILE


def test_the_deployment_runs_the_images_command_as_the_images_user() -> None:
    found = re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None and json.loads(found[1]) == _container()["command"]
    context = _pod()["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in DOCKERFILE


def test_the_dockerfile_does_what_its_comments_promise() -> None:
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    stages = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(stages) == 2, "a stage to build in, and one to run"
    final = "\n".join(lines[stages[1] :])
    assert "RUN " not in final, "nothing is installed in what runs"
    assert "\nSTOPSIGNAL SIGTERM\n" in final and "HEALTHCHECK" not in final
    base = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None and re.fullmatch(r"[a-z]+:\d[\w.-]*", base[1]), "no registry's host"


def test_every_variable_of_the_image_that_looks_like_a_setting_is_one() -> None:
    values = dict(re.findall(r"^(?:ENV|   ) +([A-Z_]+)=(\S+)", DOCKERFILE, re.MULTILINE))
    ours = {name: value for name, value in values.items() if name in NAMES}
    assert {"HOST", "LOG_FORMAT", "SSE_LOG"} <= set(ours)
    Settings(**{name.lower(): value for name, value in ours.items()})
    assert not {name for name in values if name.startswith(("SSE_", "HEALTH_"))} - NAMES


def test_the_build_context_has_exactly_the_copied_code() -> None:
    allowed = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        name.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_all_top_level_packages_and_modules_that_the_service_imports_are_in_the_image() -> None:
    copied = set(re.findall(r"[\w.]+", " ".join(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE))))
    ours = {path.stem: path.name for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    sources = [Path(ROOT, name) for name in ("app.py", "wsgi.py", "settings.py", "gunicorn.conf.py")]
    sources += [*(ROOT / "sse").rglob("*.py"), *(ROOT / "health").rglob("*.py")]
    imported = {
        name
        for path in sources
        for name in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        if name in ours
    }
    assert {ours[name] for name in imported} <= copied


# ── nginx ─────────────────────────────────────────────────────────────────────────────────────────────────


def _nginx_seconds(name: str, text: str = NGINX) -> list[int]:
    return [int(value) for value in re.findall(rf"^\s*{name} (\d+)s;", text, re.MULTILINE)]


def test_nginx_passes_streams_on_at_once_and_waits_for_several_heartbeats() -> None:
    settings = _settings()
    events = NGINX[NGINX.index("location /events {") :]
    assert "proxy_buffering off;" in events and "gzip off;" in events
    assert _nginx_seconds("proxy_read_timeout", events)[0] >= 3 * settings.sse_heartbeat
    assert _nginx_seconds("send_timeout", events)[0] > settings.sse_write_timeout
    assert "proxy_http_version 1.1;" in NGINX and 'proxy_set_header Connection "";' in NGINX


def test_nginx_closes_idle_connections_before_the_service_does() -> None:
    assert _nginx_seconds("keepalive_timeout")[0] < _settings().sse_idle_timeout


def test_nginx_accepts_what_the_service_accepts_and_logs_no_tokens() -> None:
    found = re.search(r"client_max_body_size (\d+)m;", NGINX)
    assert found is not None and int(found[1]) << 20 >= _settings().sse_max_batch_bytes
    (form,) = re.findall(r"log_format \w+ '([^']*)'", NGINX)
    assert not re.search(r"\$(request|request_uri|args|query_string)\b", form)
