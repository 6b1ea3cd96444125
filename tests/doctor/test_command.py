"""The command: what it reads, what it refuses in one line, its formats, exit statuses and cost."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from health.doctor import cli
from health.doctor.finding import RULES
from tests.doctor.manifests import container, deployment, ingress, service, text_of
from tests.doctor.sarif import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
FAULTY = text_of([deployment(container(readinessProbe={"httpGet": {"path": "/sse", "port": "http"}})), service(), ingress("nginx")])
CLEAN = text_of([deployment(), service()])


class Stdin:
    """Standard input as a pipe."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", Stdin(data))
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)) + "kind: Pod\n"

REFUSED = [
    pytest.param(b"hello\n", "no Kubernetes object", id="no YAML"),
    pytest.param(b"", "no Kubernetes object", id="nothing"),
    pytest.param(b"kind: Pod\n  a: b\n c", "line 2: not YAML", id="broken YAML"),
    pytest.param(b"kind: Pod\nname: {{ .Release.Name }}\n", "a template that was not rendered", id="a template's value"),
    pytest.param(b"{{- if .x }}\nkind: Pod\n{{- end }}\n", "a template that was not rendered", id="a template's line"),
    pytest.param(b"\x7fELF\0\0\0", "binary", id="binary"),
    pytest.param(b"\xff\xfe", "not UTF-8", id="another encoding"),
    pytest.param(b"a" * (50 * 2**20), "more than 32 MiB", id="50 MB"),
    pytest.param(BOMB.encode(), "more than 500,000 values", id="a YAML bomb"),
    pytest.param(b"[" * 100_000, "nested more than 100 levels", id="nested"),
    pytest.param(b"a: *b\n", "not YAML", id="an unknown alias"),
    pytest.param(b"a: &a [*a]\nkind: Pod\n", "not YAML", id="an alias of itself"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), REFUSED)
def test_input_that_cannot_be_examined_gets_one_line_and_status_2(
    data: bytes, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.process_time()
    status, out, error = run(capsys, monkeypatch, data)
    assert (status, out) == (2, "")
    assert error.startswith("headwater doctor: ") and message in error and error.count("\n") == 1, error
    assert time.process_time() - begun < 10  # a limit that only waits for the whole input would take far longer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-f", "/no/such/file"], "No such file", id="no file"),
        pytest.param(["-f", str(ROOT / "sse")], "no .yaml, .yml or .json file", id="a folder without YAML"),
        pytest.param(["--fix", "--url", "http://127.0.0.1:1/"], "--fix repairs manifests", id="fix without a manifest"),
        pytest.param(["--through", "http://127.0.0.1:1/"], "give both", id="one way only"),
        pytest.param(["--url", "http://127.0.0.1:1/", "--stream-path", "events"], "begins with /", id="a path without a slash"),
        pytest.param(["--url", "http://127.0.0.1:1/", "--header", "nothing"], "'NAME: VALUE'", id="a header without a colon"),
    ],
)
def test_invalid_arguments_get_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_without_arguments_a_terminal_is_not_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Stdin(b"")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert cli.main([]) == 2
    assert "nothing to examine" in capsys.readouterr().err


def test_the_exit_status_follows_the_gravest_finding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    risky = text_of([deployment(), service(sessionAffinity="ClientIP")])
    assert run(capsys, monkeypatch, FAULTY.encode())[0] == 1
    assert run(capsys, monkeypatch, risky.encode())[0] == 0
    assert run(capsys, monkeypatch, risky.encode(), "--fail-on", "risks")[0] == 1
    status, out, _ = run(capsys, monkeypatch, CLEAN.encode(), "--fail-on", "note")
    assert (status, out) == (0, "nothing found\n")


def test_json_has_the_documented_members(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run(capsys, monkeypatch, FAULTY.encode(), "--format", "json")
    report = json.loads(out)
    assert set(report) == {"findings", "notes"}
    first = report["findings"][0]
    assert list(first) == ["id", "name", "severity", "file", "document", "line", "object", "field", "reason", "repair", "link"]
    line = first["line"]
    assert "path: /sse" in FAULTY.splitlines()[line - 1]
    assert (first["id"], first["severity"], first["file"], first["document"]) == ("HW101", "breaks", "stdin", 1)
    assert (first["object"], first["field"]) == ("Deployment/shop", "spec.template.spec.containers[web].readinessProbe.httpGet.path")
    page, _, section = first["link"].partition("#")
    assert section in {rule.section for rule in RULES.values()} and (ROOT / page).is_file()


def test_sarif_follows_its_schema(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (FAULTY, CLEAN):
        document = json.loads(run(capsys, monkeypatch, text.encode(), "--format", "sarif")[1])
        jsonschema.validate(document, SCHEMA)
    result = json.loads(run(capsys, monkeypatch, FAULTY.encode(), "--format", "sarif")[1])["runs"][0]["results"][0]
    assert result["level"] == "error" and result["ruleId"] == "HW101"


def test_github_annotations_are_one_line_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = run(capsys, monkeypatch, FAULTY.encode(), "--format", "github")[1]
    assert all(row.startswith(("::error file=stdin,line=", "::warning file=", "::notice file=")) for row in out.splitlines())
    assert "title=HW101 probe-on-a-stream::Deployment/shop" in out and "%0A" in out


def test_colour_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in run(capsys, monkeypatch, FAULTY.encode())[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mbreaks\x1b[0m" in run(capsys, monkeypatch, FAULTY.encode())[1]


def test_files_folders_and_lists_are_read_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [deployment(container(readinessProbe=None)), service()]
    (tmp_path / "a.yaml").write_text(text_of(documents[:1]))
    (tmp_path / "b.json").write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": documents[1:]}))
    (tmp_path / "values.yaml").write_text("replicas: 3\n")
    below = tmp_path / "below"
    below.mkdir()
    (below / "c.yaml").write_text(text_of(deployment(container(readinessProbe=None), name="other")))

    def objects(*arguments: str) -> tuple[set[str], list[str]]:
        cli.main([*arguments, "--format", "json"])
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {finding["object"] for finding in report["findings"]}, report["notes"]

    found, notes = objects("-f", str(tmp_path))
    assert found == {"Deployment/shop"}
    assert any("values.yaml: passed over" in note for note in notes)
    assert objects("-f", str(tmp_path), "-R")[0] == {"Deployment/shop", "Deployment/other"}
    assert objects("-f", str(tmp_path / "a.yaml"), "-f", str(below))[0] == {"Deployment/shop", "Deployment/other"}


def test_unknown_kinds_are_skipped_and_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    schema = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: things}\nspec: {livenessProbe: {periodSeconds: 0}}\n---\n"
    report = json.loads(run(capsys, monkeypatch, (schema + CLEAN).encode(), "--format", "json")[1])
    assert report == {"findings": [], "notes": ["CustomResourceDefinition/things: passed over, a kind that no rule knows"]}


def test_a_patch_is_not_judged_as_a_whole_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": {"template": {"spec": {"containers": [{"name": "web"}]}}}}
    report = json.loads(run(capsys, monkeypatch, text_of(patch).encode(), "--format", "json")[1])
    assert report["findings"] == [] and "a patch without an image" in report["notes"][0]


def test_objects_made_by_a_deployment_are_not_judged_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    owner = deployment(container(readinessProbe=None))
    template = owner["spec"]["template"]
    replica_set = {**deployment(container(readinessProbe=None), name="shop-5d9c", kind="ReplicaSet")}
    replica_set["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "shop"}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop-5d9c-x", "labels": {"pod-template-hash": "5d9c"}, "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-5d9c"}]}, "spec": template["spec"]}

    def objects(*documents: dict[str, Any]) -> set[str]:
        out = run(capsys, monkeypatch, text_of(documents).encode(), "--format", "json")[1]
        return {finding["object"] for finding in json.loads(out)["findings"]}

    assert objects(owner, replica_set, pod) == objects(owner, pod) == {"Deployment/shop"}
    assert objects(pod) == {"Pod/shop-5d9c-x"}


def test_repaired_files_stay_separate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text_of(deployment(name=name[0])).rstrip("\n"))
    cli.main(["-f", str(tmp_path), "--fix"])
    assert [document["metadata"]["name"] for document in yaml.safe_load_all(capsys.readouterr().out)] == ["a", "b"]


def test_it_imports_nothing_slow_and_nothing_of_the_service(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(FAULTY)
    code = (
        "import sys; from health.doctor.cli import main; main(['-f', sys.argv[1]]);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'flask', 'gevent', 'sse', 'gunicorn', 'jinja2', 'redis', 'pydantic'}),"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr == "[]\n"


def test_it_runs_as_a_module_and_stays_quick(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(FAULTY)
    done = subprocess.run(
        [sys.executable, "-c", "import resource, subprocess, sys; subprocess.run(sys.argv[1:]);"
         "print(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), file=sys.stderr)",
         sys.executable, "-m", "health.doctor", "-f", str(path)],
        capture_output=True, text=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert "HW101" in done.stdout
    assert float(done.stderr.splitlines()[-1]) < 1.0  # seconds of CPU; 0.2 on a quiet machine
