"""``headwater doctor``: :mod:`headwater.health.doctor`, which reads its own arguments."""

from __future__ import annotations

import sys

import click


@click.command("doctor", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Say what is wrong with an SSE service in Kubernetes, and repair its manifest."""
    from ..health.doctor.cli import main

    sys.exit(main(arguments))
