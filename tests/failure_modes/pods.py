"""The two pods of the lab: the plain app, and Headwater with the manifests and probes that we ship."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.support.kubelet import HttpGet, Kind, Kubelet, PodSpec, ProbeSpec, Scale, load_documents, pod_from_manifest
from tests.support.ports import ReservedPort

ROOT = Path(__file__).resolve().parents[2]
PLAIN_MANIFEST = ROOT / "tests/failure_modes/plain/deployment.yaml"
OUR_MANIFESTS = ROOT / "k8s"

#: One second here is ten of Kubernetes; back-offs are even shorter. Time-outs stay as in the manifest, because the
#: answering process does not run faster.
TENTH = Scale(probes=0.1, back_off=0.02, grace=0.1, least_timeout=60.0)

#: The plain app's end is known, and is waited for several times. Half a second is what is left of its probes' one.
TWENTIETH = Scale(probes=0.05, back_off=0.02, grace=0.05, least_timeout=0.5)

#: Time for the plain pod's start, which may take seconds on a busy machine and matters only for no. 3. A startup probe on
#: the streams' port would fail, too, when they fill it, so there are two.
STARTUP_PROBE = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 4, "failureThreshold": 120}
INITIAL_DELAY = {"initialDelaySeconds": 50}


class Ports:
    """Gives ports that stay free until the test is over."""

    def __init__(self) -> None:
        self._held: list[ReservedPort] = []

    def __call__(self) -> int:
        self._held.append(ReservedPort())
        return self._held[-1].number

    def release(self) -> None:
        for port in self._held:
            port.release()


class Pod:
    """A pod under the simulated kubelet, and how its clients reach it."""

    def __init__(self, kubelet: Kubelet, ports: Ports) -> None:
        self.kubelet = kubelet
        self._ports = ports

    @property
    def port(self) -> int:
        """Return the streams' port."""
        return self.kubelet.port("http")

    @property
    def health_port(self) -> int:
        """Return the probes' port, which in the plain app is the streams'."""
        return self.kubelet.spec.ports.get("health", self.port)

    @property
    def restarts(self) -> int:
        return self.kubelet.restarts

    def unhealthy(self, *kinds: Kind) -> list[str]:
        """Return what the kubelet said of failed probes, by default of those after the start."""
        starts = tuple(kind.value for kind in kinds or (Kind.LIVENESS, Kind.READINESS))
        return [event.message for event in self.kubelet.events("Unhealthy") if event.message.startswith(starts)]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = "text/plain",
        port: int | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        """Send one request on its own connection; port: by default the streams'."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": content_type} if body else {})
            response = connection.getresponse()
            return Answer(response.status, response.read().decode(), response.headers)
        finally:
            connection.close()

    def probe(self, path: str) -> Answer:
        """Return what a probe gets on the health port."""
        return self.ask("GET", path, port=self.health_port)

    def metric(self, name: str) -> float:
        """Return the value of one of Headwater's series, 0 if there is none yet."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.probe("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0


class Answer(NamedTuple):
    status: int
    text: str
    headers: http.client.HTTPMessage


@contextlib.contextmanager
def running(spec: PodSpec, ports: Ports, directory: Path, scale: Scale, *, ready: bool) -> Iterator[Pod]:
    directory.mkdir(exist_ok=True)
    try:
        with Kubelet(spec, directory, scale) as kubelet:
            if ready:
                kubelet.wait_for("Ready")
            try:
                yield Pod(kubelet, ports)
            except BaseException as error:
                error.add_note(kubelet.describe())
                raise
    finally:
        ports.release()


@contextlib.contextmanager
def plain_pod(
    directory: Path,
    scale: Scale = TWENTIETH,
    *,
    probe_path: str | None = None,
    patience: Literal["startup probe", "initial delay", "none"] = "startup probe",
    ready: bool = True,
    **env: str | float,
) -> Iterator[Pod]:
    """Run the plain app.

    probe_path: its probes' path, if not /healthz; patience: its manifest's time for the start; ready: wait for it;
    env: its settings.
    """
    ports = Ports()
    documents = load_documents(PLAIN_MANIFEST)
    container = documents[0]["spec"]["template"]["spec"]["containers"][0]
    if patience == "startup probe":
        container["startupProbe"] = STARTUP_PROBE
    elif patience == "initial delay":
        container["livenessProbe"] |= INITIAL_DELAY
    settings = {"GRACEFUL_TIMEOUT": round(30 * scale.grace), **env}
    spec = pod_from_manifest(
        documents, free_port=ports, env={**_text(settings), "PYTHONPATH": str(ROOT)}, cwd=ROOT
    )
    if probe_path is not None:
        probes = dict(spec.probes)
        for kind in (Kind.LIVENESS, Kind.READINESS):
            probes[kind] = aimed(probes[kind], probe_path)
        spec = replace(spec, probes=probes)
    with running(spec, ports, directory / "plain", scale, ready=ready) as pod:
        yield pod


@contextlib.contextmanager
def our_pod(
    directory: Path,
    scale: Scale = TENTH,
    *,
    documents: Sequence[Mapping[str, Any]] | None = None,
    command: Sequence[str] | None = None,
    ready: bool = True,
    **env: str | float,
) -> Iterator[Pod]:
    """Run Headwater from ``k8s/``, with its own log.

    documents: other manifests; command: what to run instead of the manifest's; env: settings that win over its own.
    """
    ports = Ports()
    directory = directory / "headwater"
    directory.mkdir(exist_ok=True)
    settings = {
        "HOST": "127.0.0.1",
        "SSE_LOG": f"sqlite:///{directory}/log.db",
        "PYTHONPATH": str(ROOT),
        # In the grace period's scale: the manifest's 5 and 15 s would take longer than the rest of the test.
        "SSE_DRAIN_DELAY": 0.5,
        "SSE_DRAIN_WINDOW": 1,
        **env,
    }
    spec = pod_from_manifest(
        load_documents(OUR_MANIFESTS) if documents is None else documents,
        free_port=ports,
        deployment="headwater",
        command=None,
        env=_text(settings),
        cwd=ROOT,
    )
    if command is not None:
        spec = replace(spec, command=tuple(command))
    # The time that the process and gunicorn need to exit does not shrink with the drain's settings.
    scale = replace(scale, grace=max(scale.grace, 8 / spec.grace))
    with running(spec, ports, directory, scale, ready=ready) as pod:
        yield pod


def serving(app: str, *arguments: str) -> tuple[str, ...]:
    """Return Headwater's command with another WSGI app."""
    return ("gunicorn", "-c", "gunicorn.conf.py", *arguments, app)


def aimed(probe: ProbeSpec, path: str) -> ProbeSpec:
    """Return the probe, aimed at another path."""
    assert isinstance(probe.action, HttpGet)
    return replace(probe, action=replace(probe.action, path=path))


def _text(settings: Mapping[str, str | float]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}
