"""The doctor's small parsers, and its assumptions about shells, tried with this machine's shells."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from health.doctor import images, nginxconf, shell
from health.doctor.errors import CannotRun
from health.doctor.load import Loaded, take
from health.doctor.tree import parse, plain
from health.doctor.units import FOREVER, cpu, memory, say, seconds, setting_seconds
from health.doctor.workloads import expand, heartbeat
from tests.support.wait import eventually


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30", 30), ("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("PT20S", 20), ("PT1M", 60), ("infinity", FOREVER),
        ("-1", FOREVER), ("1d", 86400), ("", None), ("soon", None), ("30 s", None), ("s", None), (None, None), ("PT", 0),
    ],
)  # fmt: skip
def test_durations(text: str | None, value: float | None) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("SHUTDOWN_TIMEOUT", "30", 30), ("SHUTDOWN_TIMEOUT_MS", "500", 0.5), ("SHUTDOWN_TIMEOUT", "30000", 30),
        ("DRAIN_SECONDS", "3600", 3600), ("DRAIN_MINUTES", "2", 120), ("DRAIN", "yes", None),
    ],
)  # fmt: skip
def test_a_variables_name_tells_the_unit(name: str, text: str, value: float | None) -> None:
    assert setting_seconds(name, text) == value


def test_quantities_are_read_and_formatted() -> None:
    assert (cpu("250m"), cpu("2"), cpu("x"), memory("512Mi"), memory("1G"), memory(None)) == (0.25, 2, None, 2**29, 1e9, None)
    assert [say(value) for value in (0.5, 45, 300, 6667, 7200, 86400)] == ["0.5 s", "45 s", "300 s", "1 h 51 min", "2 h", "24 h"]


@pytest.mark.parametrize(
    ("env", "value"),
    [
        ({"SSE_HEARTBEAT": "15"}, 15), ({"HEARTBEAT_INTERVAL": "15s"}, 15), ({"HEARTBEAT_MS": "20000"}, 20), ({"HEARTBEAT": "15000"}, 15),
        ({"PING_INTERVAL": "30"}, 30), ({"KEEPALIVE": "75"}, None), ({"HEARTBEAT": "off"}, None), ({}, None),
    ],
)  # fmt: skip
def test_heartbeats(env: dict[str, str], value: float | None) -> None:
    assert heartbeat(env) == value


def test_references_are_expanded_as_the_kubelet_does() -> None:
    assert expand("$(A)-$(B)-$$(A)-$A-$(A", {"A": "1"}) == "1-$(B)-$(A)-$A-$(A"


@pytest.mark.parametrize(
    ("name", "base", "has_curl", "has_sh"),
    [
        ("gcr.io/distroless/static-debian12:nonroot", "distroless", False, False),
        ("gcr.io/distroless/base:debug", "", None, None),
        ("python:3.12-slim", "debian-slim", False, True),
        ("registry.example/app:1-slim-bookworm", "debian-slim", None, True),
        ("python:3.12", "debian", True, True),
        ("node:22-alpine", "alpine", False, True),
        ("registry.example:5000/team/app:2-alpine3.20", "alpine", None, True),
        ("registry.example:5000/team/app", "", None, None),
        ("nginx:1.27", "debian", None, True),
        ("nginx:1.27-alpine", "alpine", None, True),  # it has curl
        ("registry.example/alpine-tours/shop:1", "", None, None),
        ("debian:12", "debian-slim", False, True),
        ("registry.access.redhat.com/ubi9/python-311:1", "redhat", None, None),
        ("app@sha256:abc", "", None, None),
    ],
)
def test_an_images_name_tells_its_system(name: str, base: str, has_curl: bool | None, has_sh: bool | None) -> None:
    image = images.read(name)
    assert (image.base, image.has("curl"), image.has("sh")) == (base, has_curl, has_sh)


@pytest.mark.parametrize("name", ["redis:7", "docker.io/bitnami/postgresql:16", "quay.io/prometheus/node-exporter", "otel/opentelemetry-collector-contrib:1"])
def test_backends_are_known_by_name(name: str) -> None:
    assert images.read(name).backend


@pytest.mark.parametrize("name", ["registry.example/redis-stream-api:1", "notifier:1", "shop/prometheus-feed:2", "nginx:1", "registry.example/chat-agent:1", "notify-kafka:2"])
def test_images_that_only_look_like_backends_are_none(name: str) -> None:
    assert not images.read(name).backend


@pytest.mark.parametrize(
    ("script", "commands"),
    [
        ("a && b || c; d | e & f", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a 'b && c' \"d; e\" # f && g\nh", [["a", "b && c", "d; e"], ["h"]]),
        ("a \\\n  b >/dev/null 2>&1", [["a", "b", ">/dev/null", "2>&1"]]),
        ("A=$(x; y) a", [["A=$(x; y)", "a"]]),
        ("a &&\nb", [["a"], ["b"]]),
        ("", []),
        ("'unclosed", [["'", "unclosed"]]),
    ],
)
def test_scripts_are_split_into_commands(script: str, commands: list[list[str]]) -> None:
    assert [list(command.words) for command in shell.Script(script).commands] == commands


@pytest.mark.parametrize("script", ["if a; then b; fi", "while true; do a; done", "(a; b)", "cat <<X\na\nX"])
def test_an_unknown_construct_is_not_clear(script: str) -> None:
    assert not shell.Script(script).clear


def test_nginx_configurations_are_trees_with_inherited_directives() -> None:
    root = nginxconf.parse('http {\n  gzip on; # {\n  server {\n    location ~ "^/a{2}" {\n      proxy_pass http://x;\n    }\n  }\n}\n')
    assert root is not None
    location = next(block for block in root.walk() if block.name == "location")
    assert (location.arguments, location.line, location.get("gzip"), location.get("gzip", inherit=False)) == (["~", "^/a{2}"], 3, (["on"], 1), None)


@pytest.mark.parametrize("text", ["a {", "}", "a: b", "{ }", "x"])
def test_other_text_is_no_nginx_configuration(text: str) -> None:
    assert nginxconf.parse(text) is None


def test_yaml_keeps_lines_text_and_merges() -> None:
    (document,) = parse("a: &x {b: 1, c: 'no'}\nd:\n  <<: *x\n  b: 2\ne: ~\n", "text")
    assert plain(document) == {"a": {"b": "1", "c": "no"}, "d": {"b": "2", "c": "no"}, "e": None}
    assert document.entries["d"][0].start == (1, 0)


def test_both_yaml_parsers_give_the_texts_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """ruamel.yaml's C parser is optional; both must say the same."""
    from ruamel import yaml

    text = "# é\na:\n- b: |\n    x\n\n  c: [1, {d: 'e'}]\n---\nf: g\n"

    def marks() -> list[tuple[object, ...]]:
        found = []
        for document in parse(text, "text"):
            stack = [document]
            while stack:
                node = stack.pop()
                found.append((node.kind, node.start, node.text, node.style, node.flow))
                stack += node.items + [each for entry in node.entries.values() for each in entry]
        return found

    fast = marks()
    pure = yaml.YAML(typ="safe", pure=True)
    monkeypatch.setattr(yaml, "YAML", lambda typ: pure)
    assert marks() == fast


def test_a_list_of_lists_is_unpacked() -> None:
    loaded = Loaded()
    assert take("x", "kind: List\nitems:\n- kind: PodList\n  items:\n  - {kind: Pod, metadata: {name: a}}\n- {kind: Service}\n", loaded)
    assert [each.id for each in loaded.objects] == ["Pod/a", "Service/unnamed"]
    assert loaded.objects[0].trail == ("items", 0, "items", 0)


def test_the_error_about_a_too_deep_document_says_where() -> None:
    with pytest.raises(CannotRun, match=r"x, line 1: nested more than 100 levels"):
        parse("[" * 200 + "]" * 200, "x")


# ── what shells do, which HW111 and HW202 rest on
SHELLS = [pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not here")) for name in ("dash", "bash")]


def replaced(name: str, script: str) -> bool:
    """Return True if the script's last command replaced the shell."""
    process = subprocess.Popen([name, "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

        def settled() -> str:
            comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
            return comm if comm == "sleep" or children.read_text().strip() else ""

        return eventually(settled, 5) == "sleep"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("name", SHELLS)
def test_bash_execs_its_last_command_and_dash_does_not(name: str) -> None:
    assert replaced(name, "echo up && sleep 60") is (name == "bash")
    assert replaced(name, "echo up\nsleep 60\n") is (name == "bash")
    assert replaced(name, "echo up; exec sleep 60")


@pytest.mark.parametrize("name", SHELLS)
def test_only_bash_knows_dev_tcp_and_only_in_redirections(name: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        redirected = subprocess.run([name, "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"], capture_output=True, timeout=10)
        opened = subprocess.run([name, "-c", f"head -c1 /dev/tcp/127.0.0.1/{port}"], capture_output=True, timeout=10)
    assert redirected.returncode == (0 if name == "bash" else 2)
    assert opened.returncode == 1


@pytest.mark.parametrize("name", SHELLS)
def test_a_doubly_quoted_script_is_the_name_of_a_program(name: str) -> None:
    assert subprocess.run([name, "-c", "'sleep 10'"], capture_output=True, timeout=10).returncode == 127
