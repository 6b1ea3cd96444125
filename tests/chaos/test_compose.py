"""compose.yaml agrees with the service, the image and the nginx file that it names."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from sse.settings import Settings
from tests.k8s.nginx import SHIPPED
from tests.support.server import ROOT


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_two_instances_share_one_redis_behind_the_nginx_that_is_tested(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"headwater", "redis", "nginx"}
    assert services["headwater"]["deploy"]["replicas"] == 2
    source, _, target = services["nginx"]["volumes"][0].partition(":")
    assert (ROOT / source).resolve() == SHIPPED and target == "/etc/nginx/nginx.conf:ro"


def test_nginx_finds_the_instances_and_is_found(compose: dict[str, Any]) -> None:
    text = SHIPPED.read_text()
    default = Settings.model_fields["port"].default
    assert re.search(rf"server headwater:{default}[ ;]", text), "the upstream is not the service's name and port"
    published = compose["services"]["nginx"]["ports"][0].split(":")[-1]
    assert re.search(rf"listen {published};", text)


def test_the_environment_holds_settings_that_the_service_takes(compose: dict[str, Any], monkeypatch: Any) -> None:
    environment = compose["services"]["headwater"]["environment"]
    assert {name.lower() for name in environment} <= set(Settings.model_fields)
    for name, value in environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value)))
    settings = Settings.from_environ()
    assert re.fullmatch(r"redis://redis:6379/0", str(settings.sse_log)), "not the Redis of this file"
    subnet = compose["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    assert [str(network) for network in settings.sse_trusted_proxies] == [subnet]


def test_a_drain_is_not_cut_and_every_stream_may_have_its_file(compose: dict[str, Any]) -> None:
    service, settings = compose["services"]["headwater"], Settings()
    assert seconds(service["stop_grace_period"]) >= settings.termination_grace
    assert service["ulimits"]["nofile"] >= settings.sse_max_streams * 2


def test_redis_keeps_what_it_was_given(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    pairs = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert pairs["--appendonly"] == "yes" and pairs["--maxmemory-policy"] == "noeviction"
    volume, _, place = redis["volumes"][0].partition(":")
    assert volume in compose["volumes"] and place == "/data", "its file is gone with the container"


def test_nobody_starts_before_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, needs in (("headwater", "redis"), ("nginx", "headwater")):
        assert services[name]["depends_on"][needs]["condition"] == "service_healthy"
        assert services[needs]["healthcheck"]["test"][0] == "CMD"
