"""The command ``headwater``. Each subcommand is a module here, imported when it is asked for (:mod:`.group`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns or exits with its status: 0, 1 (it failed) or 2 (wrong arguments or settings).

    arguments: without the program's name; None: those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["probe"]:  # the kubelet starts it for each probe: importing click costs more CPU than the probe
        from ..health.probe import main as probe

        return probe(words[1:])
    from .group import commands

    commands.main(words, prog_name="headwater")
    return 0
