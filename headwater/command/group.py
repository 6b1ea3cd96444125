"""The table of subcommands."""

from __future__ import annotations

import keyword
from importlib import import_module
from typing import Any

import click

from ..sse.version import VERSION

# Each is a module of this name here, whose ``command`` is a click command. In the order of ``headwater --help``.
NAMES = ("serve", "publish", "listen", "token", "config", "log", "doctor", "probe")


class Commands(click.Group):
    """Imports only the subcommand that is asked for.

    package: has a module for each of the names. (``import`` is in ``import_``: Python keeps the word for itself.)
    """

    def __init__(self, *args: Any, package: str | None, names: tuple[str, ...], **options: Any) -> None:
        super().__init__(*args, **options)
        self._package = package
        self._names = names

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._names:
            return None
        module = cmd_name + "_" * keyword.iskeyword(cmd_name)
        command: click.Command = import_module(f".{module}", self._package).command
        return command


@click.command(cls=Commands, package=__package__, names=NAMES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def commands() -> None:
    """Server-Sent Events for Kubernetes."""
