"""``headwater log channels``: which channels there are, and what the log holds of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..local import opened_log
from ..table import Table, when

if TYPE_CHECKING:
    from ...sse.log import ChannelInfo


@click.command("channels")
@click.argument("prefix", default="")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def command(prefix: str, as_json: bool) -> None:
    """List the channels whose names begin with PREFIX, or all, with the number, size and time (UTC) of their events.

    Those that hold events or are closed, in the order of their names.
    """
    aligned = str.ljust, str.rjust, str.rjust, str.ljust, str.ljust, str.ljust
    table = Table(("CHANNEL", "EVENTS", "BYTES", "OLDEST", "NEWEST", ""), aligned)
    after = ""
    with opened_log(create=False) as log:
        while True:
            page = log.channels(prefix.removesuffix("*"), after)
            if as_json:
                for channel in page:
                    click.echo(json.dumps(_fields(channel)))
            else:
                table.add(map(_row, page))
            if not page:
                return
            after = page[-1].channel


def _fields(info: ChannelInfo) -> dict[str, object]:
    """Return what ``GET /channels`` says of a channel, but for its streams."""
    from ...sse.events.model import format_id

    oldest, latest = (None if position is None else format_id(position) for position in (info.oldest, info.latest))
    return {**info._asdict(), "oldest": oldest, "latest": latest}


def _row(info: ChannelInfo) -> tuple[str, ...]:
    numbers = f"{info.events:,}", f"{info.bytes:,}"
    return info.channel, *numbers, when(info.oldest), when(info.latest), "closed" if info.closed else ""
