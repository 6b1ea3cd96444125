"""Autoscaling over a running install: the steps of docs/kubernetes.md, with the real kubectl."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.k8s.api_server import ApiServer
from tests.k8s.kubectl import kubectl
from tests.k8s.manifests import built, find
from tests.support.server import ROOT

SECTION = (ROOT / "docs" / "kubernetes.md").read_text().partition("\n## Autoscaling\n")[2].partition("\n## ")[0]
FORGET, APPLY = re.findall(r"^    (\S.*)$", SECTION, re.MULTILINE)


def _run(command: str, api: ApiServer, home: Path) -> None:
    # kubectl may be one that the tests have fetched, and must not find another cluster's configuration. This API server
    # has no schema to validate by.
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    if not (tools / "kubectl").exists():
        (tools / "kubectl").write_text(f'#!/bin/sh\nexec {kubectl()} --server {api.url} "$@" --validate=false\n')
        (tools / "kubectl").chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(home), "KUBECONFIG": "/dev/null"}
    done = subprocess.run(
        ["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False, cwd=home
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _apply_the_deployment(api: ApiServer, home: Path) -> None:
    """Run `kubectl apply -k` of the variant, of which this API server knows one kind."""
    path = home / "deployment.json"
    path.write_text(json.dumps(find(built("autoscaling"), "Deployment", "headwater")))
    _run(f"kubectl apply -f {path}", api, home)


@pytest.mark.parametrize(("steps", "left"), [([], 1), ([FORGET], 5)], ids=["without the step", "with it"])
def test_the_documented_step_keeps_the_number_of_pods(steps: list[str], left: int, tmp_path: Path) -> None:
    assert APPLY == "kubectl apply -k k8s/variants/autoscaling"
    with ApiServer(find(built("base"), "Deployment", "headwater")) as api:
        api.patch({"spec": {"replicas": 5}})     # somebody has scaled it since
        for step in steps:
            _run(step, api, tmp_path)
            assert api.deployment["spec"]["replicas"] == 5
        _apply_the_deployment(api, tmp_path)
        assert api.deployment["spec"]["replicas"] == left
