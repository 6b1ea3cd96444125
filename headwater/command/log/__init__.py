"""``headwater log``: looks into the log that SSE_LOG names, copies it, and takes things out of it."""

from __future__ import annotations

import click

from ..group import Commands

NAMES = ("channels", "show", "export", "import", "backup", "restore", "check", "erase")


@click.command("log", cls=Commands, package=__package__, names=NAMES)
def command() -> None:
    """Look into the log that SSE_LOG names, copy it, and take things out of it.

    The service may run meanwhile, unless a command says otherwise.
    """
