"""The part of a pod's manifest that governs its start, probes and end.

All durations in seconds. Field names and defaults: Kubernetes documentation, "Configure Liveness, Readiness and Startup
Probes", section "Configure Probes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path


class Kind(Enum):
    """Kubernetes documentation, "Pod Lifecycle", section "Types of probe"."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True)
class HttpGet:
    """Success is a status of 200 to 399 ("Pod Lifecycle", section "Check mechanisms")."""

    port: int
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TcpSocket:
    """Success is an open port, even if the connection closes at once ("Check mechanisms")."""

    port: int


@dataclass(frozen=True)
class Exec:
    """Success is exit status 0 ("Check mechanisms")."""

    command: tuple[str, ...]


Action = HttpGet | TcpSocket | Exec


@dataclass(frozen=True)
class ProbeSpec:
    """One probe; the defaults are Kubernetes'. grace: probe-level terminationGracePeriodSeconds."""

    action: Action
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: float | None = None


@dataclass(frozen=True)
class BackOffSpec:
    """ "Pod Lifecycle", section "Pod-level container restart policy": 10 s, 20 s, 40 s, … at most 5 minutes; forgotten
    once a container has run for 10 minutes without any problems."""

    first: float = 10.0
    most: float = 300.0
    reset_after: float = 600.0


@dataclass(frozen=True)
class Scale:
    """Factors for durations, so that tests need not take minutes. Real time by default.

    A probe's time-out is never scaled below ``least_timeout`` s, because the answering process does not run faster. For
    the same reason the grace period has its own factor.
    """

    probes: float = 1.0
    back_off: float = 1.0
    grace: float = 1.0
    least_timeout: float = 0.5

    def probe(self, spec: ProbeSpec) -> ProbeSpec:
        shortest = min(spec.timeout, self.least_timeout)
        return replace(
            spec,
            initial_delay=spec.initial_delay * self.probes,
            period=spec.period * self.probes,
            timeout=max(spec.timeout * self.probes, shortest),
            grace=None if spec.grace is None else spec.grace * self.grace,
        )


@dataclass(frozen=True)
class PodSpec:
    """A pod with one container that matters.

    ports: the container's port names → local port numbers. env: the container's whole environment, without PATH.
    cwd: where its command runs. grace: terminationGracePeriodSeconds.
    """

    name: str
    container: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[Kind, ProbeSpec] = field(default_factory=dict)
    grace: float = 30.0
    back_off: BackOffSpec = BackOffSpec()
    cwd: Path = Path()

    def scaled(self, scale: Scale) -> PodSpec:
        back_off = BackOffSpec(
            self.back_off.first * scale.back_off,
            self.back_off.most * scale.back_off,
            self.back_off.reset_after * scale.back_off,
        )
        return replace(
            self,
            probes={kind: scale.probe(spec) for kind, spec in self.probes.items()},
            grace=self.grace * scale.grace,
            back_off=back_off,
        )
