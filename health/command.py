"""The command ``headwater``. What it can do imports neither Flask nor the service."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """\
usage: headwater doctor …   what is wrong with an SSE service in Kubernetes, and the repaired manifest
       headwater probe …    ask a running service for a heartbeat, as an exec probe does
headwater doctor --help and headwater probe --help say more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument; returns the exit status (2: there is no such command)."""
    match list(sys.argv[1:] if arguments is None else arguments):
        case ["doctor", *rest]:
            from .doctor.cli import main as doctor

            return doctor(rest)
        case ["probe", *rest]:
            from .probe import main as probe

            return probe(rest)
        case ["-h" | "--help"]:
            print(USAGE)
            return 0
    print(USAGE, file=sys.stderr)
    return 2
