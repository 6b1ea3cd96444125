"""The rules, by theme. Importing this package fills the table (finding.RULES)."""

from __future__ import annotations

from . import (  # noqa: F401  (each enters its rules into the table)
    controllers,
    exec_probes,
    gateways,
    gunicorn,
    hooks,
    ingress,
    load_balancers,
    mesh,
    network,
    nginx,
    patience,
    probe_ports,
    probes,
    resources,
    scaling,
    servers,
    shutdown,
)
