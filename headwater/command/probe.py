"""``headwater probe``, for the list of commands: :func:`headwater.command.main` runs it without click."""

from __future__ import annotations

import sys

import click


@click.command("probe", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Ask a running service for a heartbeat, as an exec probe does."""
    from ..health.probe import main

    sys.exit(main(list(arguments)))
