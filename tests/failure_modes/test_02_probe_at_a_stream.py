"""No. 2: a probe that is aimed at a stream.

The kubelet reads an answer to its end (or up to 10 KB), and a stream has none. If the stream has not sent its head, the
probe *fails*, and the container is restarted. If it has, the probe *errors* and its result is discarded, so the pod is
never ready and never restarted (see tests/support/kubelet/probers.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.failure_modes.pods import OUR_MANIFESTS, our_pod, plain_pod
from tests.support.kubelet import Exec, Kind, load_documents
from tests.support.wait import eventually

ERRORED = (
    "probe errored and resulted in failure state: "
    "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
)


def test_the_plain_pod_is_restarted_when_its_stream_is_silent_at_first(tmp_path: Path) -> None:
    with plain_pod(tmp_path, probe_path="/events", ready=False, WELCOME="") as pod:
        pod.kubelet.wait_for("Killing")
        assert pod.kubelet.count("Ready") == 0
        assert any(text.endswith("(Client.Timeout exceeded while awaiting headers)") for text in pod.unhealthy())


def test_the_plain_pod_is_never_ready_nor_restarted_when_its_stream_has_begun(tmp_path: Path) -> None:
    with plain_pod(tmp_path, probe_path="/events", ready=False) as pod:
        eventually(lambda: len([text for text in pod.unhealthy(Kind.LIVENESS) if ERRORED in text]) > 1, 15)
        assert pod.kubelet.count("Ready") == pod.restarts == 0


def test_none_of_our_manifests_aims_an_http_probe_at_a_stream() -> None:
    aimed = []
    for path in sorted(OUR_MANIFESTS.rglob("*.yaml")):
        for document in load_documents(path):
            spec = document.get("spec", {}).get("template", {}).get("spec", {}) if isinstance(document, dict) else {}
            for container in spec.get("containers", ()):
                probes = [container.get(name) or {} for name in ("startupProbe", "livenessProbe", "readinessProbe")]
                aimed += [(probe.get("httpGet") or {}).get("path", "") for probe in probes]
    assert "/readyz" in aimed
    assert not [path for path in aimed if path.startswith("/events")]


def test_our_exec_probe_asks_a_stream_and_gets_an_answer(tmp_path: Path) -> None:
    documents = load_documents(OUR_MANIFESTS)
    patch = load_documents(OUR_MANIFESTS / "variants/exec-probe/readiness.yaml")[0]
    probe = patch["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    for document in documents:
        if document["kind"] == "Deployment" and document["metadata"]["name"] == "headwater":
            merged = document["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] | probe
            document["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = {
                name: value for name, value in merged.items() if value is not None
            }
    with our_pod(tmp_path, documents=documents) as pod:
        assert isinstance(pod.kubelet.spec.probes[Kind.READINESS].action, Exec)
        seen = pod.kubelet.now
        eventually(lambda: pod.kubelet.now > seen + 3, 10)
        assert pod.unhealthy() == []
        assert pod.restarts == 0
