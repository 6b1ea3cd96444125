"""A small, faithful kubelet for one pod: it runs a container's command as a local process, by its manifest. core.py has
the rules and their sources; runner.py shows how tests use it."""

from tests.support.kubelet.core import Event, Machine, Outcome, Phase
from tests.support.kubelet.manifest import ManifestError, load_documents, pod_from_manifest
from tests.support.kubelet.probers import Result, run_probe
from tests.support.kubelet.runner import Kubelet
from tests.support.kubelet.specs import BackOffSpec, Exec, HttpGet, Kind, PodSpec, ProbeSpec, Scale, TcpSocket

__all__ = [
    "BackOffSpec",
    "Event",
    "Exec",
    "HttpGet",
    "Kind",
    "Kubelet",
    "Machine",
    "ManifestError",
    "Outcome",
    "Phase",
    "PodSpec",
    "ProbeSpec",
    "Result",
    "Scale",
    "TcpSocket",
    "load_documents",
    "pod_from_manifest",
    "run_probe",
]
