"""--fix: comments, order and formatting stay, each change has its reason on the line above, a second run changes nothing."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from health.doctor import cli
from health.doctor.finding import DELETE, Change, Swap
from health.doctor.repair import change_text
from health.doctor.tree import parse
from tests.doctor import cases_probes, cases_servers, cases_ways
from tests.doctor.cases import POSITIVE
from tests.doctor.manifests import examined, text_of

assert cases_probes and cases_servers and cases_ways

MANIFEST = """\
# A shop.
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}     # flow, and a comment
spec:
    replicas:   2
    selector: {matchLabels: {app: shop}}
    template:
        metadata:
            labels: {app: shop}
        spec:
            containers:
            -   name: web
                image: 'registry.example/shop:1-alpine'
                command: ["uvicorn", "shop:app", "--host", "0.0.0.0", "--timeout-graceful-shutdown", "45"]
                ports: [{name: http, containerPort: 8000}]

                # Alive?
                livenessProbe:
                    httpGet: {path: /healthz, port: http}   # the same
                    periodSeconds: 10
                readinessProbe:
                    httpGet: {path: /sse, port: http}
                # The end of the container.
            volumes: []
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: "3600s"}
spec:
  ingressClassName: nginx
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}}]
"""


def fix(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str, int]:
    """Return the repaired text, the report, and the exit status."""
    path = tmp_path / "manifest.yaml"
    path.write_bytes(text.encode())
    status = cli.main(["-f", str(path), "--fix", *arguments])
    captured = capsys.readouterr()
    return captured.out, captured.err, status


def test_every_line_that_is_not_repaired_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed, said, status = fix(MANIFEST, tmp_path, capsys)
    gone = [line[2:] for line in difflib.ndiff(MANIFEST.splitlines(), fixed.splitlines()) if line.startswith("- ")]
    assert [line.strip() for line in gone] == [
        "httpGet: {path: /sse, port: http}",
        'annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: "3600s"}',
    ]
    assert status == 0 and "not repaired" not in said
    for comment in ("# A shop.", "# flow, and a comment", "# Alive?", "# the same", "# The end of the container."):
        assert comment in fixed


def test_each_change_has_its_reason_on_the_line_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed, _, _ = fix(MANIFEST, tmp_path, capsys)
    rows = fixed.splitlines()
    added = [row for row in rows if row not in MANIFEST.splitlines()]
    assert sum(row.strip().startswith("# HW") for row in added) >= 5
    for number, row in enumerate(rows):
        if row in added and ("terminationGrace" in row or "proxy-read-timeout" in row or "httpGet: {path: /healthz" in row):
            above = number - 1
            while rows[above].strip().startswith("#") and not rows[above].strip().startswith("# HW"):
                above -= 1
            assert rows[above].strip().startswith("# HW"), row


def test_a_second_repair_changes_nothing_and_the_result_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed, _, _ = fix(MANIFEST, tmp_path, capsys)
    again, said, status = fix(fixed, tmp_path, capsys)
    assert (again, said, status) == (fixed, "", 0)
    assert [finding for finding in examined(fixed) if finding.severity > 1] == []


def test_windows_line_ends_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed, _, _ = fix(MANIFEST.replace("\n", "\r\n"), tmp_path, capsys)
    assert fixed.count("\n") == fixed.count("\r\n") > MANIFEST.count("\n")


def test_a_list_of_kubectl_is_repaired_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = list(yaml.safe_load_all(MANIFEST))
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": documents})
    fixed, _, status = fix(text, tmp_path, capsys)
    assert status == 0
    items = yaml.safe_load(fixed)["items"]
    assert items[1]["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"}


def test_what_yaml_cannot_repair_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = MANIFEST.replace('["uvicorn", "shop:app", "--host", "0.0.0.0", "--timeout-graceful-shutdown", "45"]', '[gunicorn, "shop:app", -b, ":8000"]')
    _, said, status = fix(text, tmp_path, capsys)
    assert "not repaired: HW301 Deployment/shop" in said and "-k gevent" in said
    assert status == 1


@pytest.mark.parametrize("case", [pytest.param(case.values, id=str(case.id)) for case in POSITIVE])
def test_after_a_rules_repair_the_rule_finds_nothing(
    case: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule, documents, _, _, stream_path = case
    text = text_of(documents)
    arguments = ("--stream-path", stream_path) if stream_path else ()
    fixed, _, _ = fix(text, tmp_path, capsys, *arguments)
    repairable = [each for each in examined(text, stream_path) if each.rule.id == rule and each.changes and each.severity > 1]
    left = [each for each in examined(fixed, stream_path) if each.changes and each.severity > 1]
    assert left == [], "a repair that does not satisfy its own rule"
    if repairable:
        assert f"# {rule}" in fixed
    assert fix(fixed, tmp_path, capsys, *arguments)[0] == fixed


def valid(document: dict[str, Any]) -> bool:
    """Check with the API server's schemas, for its own kinds."""
    try:
        kubernetes_validate.validate(document, "1.37", strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError):
        return False
    return True


def test_the_api_server_accepts_the_repaired_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked = 0
    for case in POSITIVE:
        text = text_of(case.values[1])
        fixed, _, _ = fix(text, tmp_path, capsys)
        for before, after in zip(yaml.safe_load_all(text), yaml.safe_load_all(fixed), strict=True):
            if before != after and valid(before):
                assert valid(after), fixed
                checked += 1
    assert checked > 60


PIECES = [
    pytest.param("a: 1\n", ("a",), "2", 'a: "2"\n', id="a scalar"),
    pytest.param("a: '1'\n", ("a",), "2", "a: '2'\n", id="its quotes stay"),
    pytest.param("a: 1 # one\n", ("a",), 2, "a: 2 # one\n", id="a comment behind it stays"),
    pytest.param("a: {b: 1}\n", ("a", "c"), 2, "a: {b: 1, c: 2}\n", id="into a flow mapping"),
    pytest.param("a: {}\n", ("a", "c"), 2, "a: {c: 2}\n", id="into an empty one"),
    pytest.param("a:\n  b: 1\n# end\n", ("a", "c"), 2, "a:\n  b: 1\n  c: 2\n# end\n", id="behind the last key"),
    pytest.param("a:\n  b: |\n    # text\n\n# end\n", ("a", "c"), 2, "a:\n  b: |\n    # text\n  c: 2\n\n# end\n", id="behind a block scalar"),
    pytest.param("a:\n", ("a", "b", "c"), 2, "a:\n  b:\n    c: 2\n", id="into what is null"),
    pytest.param("x: 1", ("a", "b"), 2, "x: 1\na:\n  b: 2\n", id="at the end, without a new line"),
    pytest.param("a:\n- n: 1\n  m: 2\n", ("a", 0, "k"), 3, "a:\n- n: 1\n  m: 2\n  k: 3\n", id="into an item"),
    pytest.param("a: [x, y]\n", ("a", 1), "z", "a: [x, z]\n", id="an item of a flow list"),
    pytest.param("a:\n- x\n- |\n  y\n", ("a", 1), "p\nq\n", "a:\n- x\n- |\n  p\n  q\n", id="a block scalar in a list"),
    pytest.param("a:\n- x # 1\n- y # 2\n", ("a",), ["x", "y", "z"], "a:\n- x # 1\n- y # 2\n- z\n", id="a list that grows"),
    pytest.param("a:\n- x # 1\n- y\n- z # 3\n", ("a",), ["x", "z"], "a:\n- x # 1\n- z # 3\n", id="a list that shrinks"),
    pytest.param("a:\n  b: {c: 1}\n  d: 2\n", ("a", "b"), Swap("e", {"f": 1}), "a:\n  e: {f: 1}\n  d: 2\n", id="another key"),
    pytest.param("a:\n  b:\n    c: 1\n  d: 2\n", ("a", "b"), Swap("e", {"f": 1}), "a:\n  e:\n    f: 1\n  d: 2\n", id="another block"),
    pytest.param("a: {b: 1, c: 2}\n", ("a", "b"), DELETE, "a: {c: 2}\n", id="out of a flow mapping"),
    pytest.param("a:\n  b: 1\n  c: 2\n", ("a", "c"), DELETE, "a:\n  b: 1\n", id="out of a block"),
    pytest.param("x: 1\na:\n  b: 1\n", ("a", "b"), DELETE, "x: 1\n", id="the last takes its parent along"),
    pytest.param("a: Off\n", ("a",), "Off", None, id="nothing to do"),
    pytest.param("a: Auto\n", ("a",), "Off", 'a: "Off"\n', id="what YAML 1.1 would misread is quoted"),
    pytest.param("a: &x {b: 1}\nc: *x\n", ("c", "b"), 2, None, id="an alias would change elsewhere, too"),
]


@pytest.mark.parametrize(("text", "path", "value", "expected"), PIECES)
def test_one_change_of_a_text(text: str, path: tuple[Any, ...], value: Any, expected: str | None) -> None:
    place: Any = None
    found = change_text(text, path, Change(place, value, ""))
    assert found == expected
    if found is not None:
        parse(found, "result")


def test_documents_are_separated_whatever_is_between_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployment, ingress = MANIFEST.split("---\n")
    text = f"%YAML 1.1\n---\n# nothing\n---\nnull\n---\n{deployment}...\n---\n{ingress}"
    fixed, _, status = fix(text, tmp_path, capsys)
    assert status == 0 and fixed.startswith("%YAML 1.1\n---\n# nothing\n---\nnull\n---\n# A shop.\n")
    assert fixed.replace("%YAML 1.1\n---\n# nothing\n---\nnull\n---\n", "").replace("...\n", "") == fix(MANIFEST, tmp_path, capsys)[0]


def test_a_bug_in_the_doctor_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "examine_files", lambda *arguments: 1 / 0)
    path = tmp_path / "manifest.yaml"
    path.write_text(MANIFEST)
    assert cli.main(["-f", str(path)]) == 2
    error = capsys.readouterr().err
    assert "a fault of its own" in error and "ZeroDivisionError" in error and error.count("\n") == 1


def test_json_stays_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = list(yaml.safe_load_all(MANIFEST))
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent=4)
    fixed, _, status = fix(text, tmp_path, capsys)
    items = json.loads(fixed)["items"]
    assert status == 0
    assert items[1]["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"}
    assert fix(fixed, tmp_path, capsys)[0] == fixed
