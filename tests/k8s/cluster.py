"""Enough of a cluster for a rollout: pods under the simulated kubelet, an nginx over the ready ones as their Service, a
Deployment's rolling update, a Redis as the log."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.k8s.manifests import find, plain
from tests.k8s.nginx import Nginx
from tests.support.kubelet import Kubelet, Scale, pod_from_manifest
from tests.support.ports import ReservedPort
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT
from tests.support.wait import eventually

KEY = "a-key-for-publishing-0001"

#: Shrinks periods, never time-outs or the grace period, because the answering process does not run faster.
QUICK = Scale(probes=0.2, least_timeout=60.0)


class Cluster:
    """The Deployment of k8s/ on this machine: its own command, environment, ports and probes.

    :param directory: for everybody's files.
    :param scale: of the probes' periods and minReadySeconds.
    :param env: goes before the manifests' environment.
    """

    def __init__(self, directory: Path, scale: Scale = QUICK, **env: str) -> None:
        self._directory = directory
        self._scale = scale
        self._stack = contextlib.ExitStack()
        self._stop = threading.Event()
        self._made = 0
        self._env = env
        self.pods: list[Kubelet] = []
        self.gone: list[Kubelet] = []
        deployment = find(plain(), "Deployment", "headwater")["spec"]
        self.replicas: int = deployment["replicas"]
        self._strategy = deployment["strategy"]["rollingUpdate"]
        self._min_ready: float = deployment["minReadySeconds"] * scale.probes

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.redis = stack.enter_context(RedisServer())
            (self._directory / "nginx").mkdir()
            self.nginx = stack.enter_context(Nginx(self._directory / "nginx"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if error is not None:
            for pod in (*self.gone, *self.pods):
                error.add_note(pod.describe())
        self._stack.close()

    # --- pods -----------------------------------------------------------------------------------------------

    def start_pod(self) -> Kubelet:
        """Start one more pod; returns at once."""
        self._made += 1
        directory = self._directory / f"pod-{self._made}"
        directory.mkdir()

        def port() -> int:
            reserved = ReservedPort()
            self._stack.callback(reserved.release)
            return reserved.number

        spec = pod_from_manifest(
            plain(),
            deployment="headwater",
            free_port=port,
            # HOST stays the manifest's; names that the cluster resolves, and the Secret, are filled in.
            env={"SSE_LOG": self.redis.url, "SSE_PUBLISH_KEY": KEY, **self._env},
            cwd=ROOT,
        )
        pod = self._stack.enter_context(Kubelet(spec, directory, self._scale))
        self.pods.append(pod)
        return pod

    def start(self) -> None:
        """Start all replicas, and the Service once a pod is ready."""
        for _ in range(self.replicas):
            self.start_pod()
        for pod in self.pods:
            pod.wait_for("Ready", timeout=30)
        self.nginx.start(self.endpoints())
        thread = threading.Thread(target=self._watch, args=(self.endpoints(),), daemon=True)
        thread.start()
        self._stack.callback(thread.join, 5)
        self._stack.callback(self._stop.set)

    def endpoints(self) -> list[int]:
        """Return the ports of the pods that Services lead to."""
        return [pod.port("http") for pod in list(self.pods) if pod.ready]

    def _watch(self, known: list[int]) -> None:
        """Update nginx like the endpoints' controller and an ingress controller together."""
        while not self._stop.wait(0.1):
            ports = self.endpoints()
            if ports and ports != known:
                self.nginx.serve(ports)
                known = ports

    # --- a rollout ------------------------------------------------------------------------------------------

    def roll(self) -> None:
        """Run a `kubectl rollout restart` to its end: replace every pod by the strategy."""
        assert self._strategy == {"maxUnavailable": 0, "maxSurge": 1}, "this is what is simulated"
        for old in list(self.pods):
            new = self.start_pod()
            new.wait_for("Ready", timeout=30)
            assert not self._stop.wait(self._min_ready)
            assert new.ready, new.describe()
            old.delete()
            # The next one starts as soon as this one no longer counts, while it still drains.
            eventually(lambda old=old: not old.ready, 5, old.describe)  # type: ignore[misc]
            self.pods.remove(old)
            self.gone.append(old)
        for old in self.gone:
            old.wait_ended(timeout=60)
