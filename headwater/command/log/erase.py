"""``headwater log erase``: a channel's events leave the log, and every worker."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..local import opened_log
from ..table import when
from ..values import channel as channel_name
from ..values import checked

if TYPE_CHECKING:
    from ...sse.log import Log


@click.command("erase")
@click.argument("channel", callback=checked(channel_name))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(channel: str, yes: bool) -> None:
    """Erase a channel: its events leave the log to the last byte, and a running service's workers and streams.

    It asks first on a terminal; elsewhere --yes is needed. A closed channel is open afterwards. Exports and backups
    keep what they have.
    """
    from ...sse.events.model import format_id

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: --yes erases without asking")
    with opened_log(create=False) as log:
        if not yes:
            click.confirm(f"Erase {channel}, {_holds(log, channel)}? This cannot be undone", abort=True, err=True)
        erased = log.erase(channel)
    click.echo(f"erased {erased.events:,} events of {channel}, through {format_id(erased.through)}")


def _holds(log: Log, channel: str) -> str:
    """Say what is about to be erased."""
    for info in log.channels(channel, limit=1):
        if info.channel == channel and info.events:
            span = f"{when(info.oldest)} to {when(info.latest)} UTC"
            return f"{info.events:,} events of {info.bytes:,} bytes, {span}"
    return "which holds no events"
