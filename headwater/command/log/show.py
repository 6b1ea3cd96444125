"""``headwater log show``: events as the log has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from ..local import opened_log
from ..table import Table, one_line, when
from ..values import checked, selector
from ..values import since as since_value

if TYPE_CHECKING:
    from ...sse.events.model import Record
    from ...sse.log import Log

# Characters of data that are read at once.
_READ_CHARS: Final = 16 * 1024 * 1024


@click.command("show")
@click.argument("channels", metavar="[CHANNEL]...", nargs=-1, callback=checked(selector))
@click.option(
    "--since",
    metavar="WHEN",
    callback=checked(since_value),
    help="The oldest after this, not the newest of all: earliest, an id, unix milliseconds, or an age such as 10m.",
)
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, as an export has it.")
def command(channels: tuple[str, ...], since: str | None, limit: int, as_json: bool) -> None:
    """Print the newest events of channels, or of all.

    CHANNEL may be a pattern, 'orders:*'. The ends and erasures of channels are shown, too. The table has control
    characters as escapes, and is cut at the edge of a terminal; --json has everything.
    """
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    table = Table(("ID", "TIME (UTC)", "CHANNEL", "TYPE", "DATA"), [str.ljust] * 5)
    with opened_log(create=False) as log:
        for page in _pages(log, channels or ("*",), since, limit):
            if as_json:
                from ...sse.log.archive import record_line

                for record in page:
                    click.echo(record_line(record))
            else:
                table.add(map(_row, page))


def _pages(log: Log, channels: tuple[str, ...], since: str | None, limit: int) -> Iterator[list[Record]]:
    """Yield at most ``limit`` records; at least one page, which may be empty."""
    from ...sse.events.model import parse_since

    if since is None:
        yield log.newest(channels, limit, _READ_CHARS)
        return
    position = parse_since(since)
    while True:
        page = log.read(channels, position, limit, _READ_CHARS)
        yield page
        limit -= len(page)
        if not page or limit <= 0:
            return
        position = page[-1].position


def _row(record: Record) -> tuple[str, ...]:
    from ...sse.events.model import format_id

    position, channel, event, _, data = record
    return format_id(position), when(position), channel, one_line(event or ""), one_line(data)
