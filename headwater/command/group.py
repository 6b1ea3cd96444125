"""The table of subcommands."""

from __future__ import annotations

from importlib import import_module

import click

from ..sse.version import VERSION

# Each is a module of this name here, whose ``command`` is a click command. In the order of ``headwater --help``.
NAMES = ("serve", "publish", "listen", "token", "config", "doctor", "probe")


class Commands(click.Group):
    """Imports only the subcommand that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in NAMES:
            return None
        command: click.Command = import_module(f".{cmd_name}", __package__).command
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def commands() -> None:
    """Server-Sent Events for Kubernetes."""
