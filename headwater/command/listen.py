"""``headwater listen``: events as they arrive, from the log or from a service at a URL."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import click

from .errors import say
from .local import opened_log
from .messages import CONTROL, Message
from .values import checked, selector
from .values import since as since_value
from .where import remote_options, service_at


@click.command("listen")
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True, callback=checked(selector))
@click.option("-e", "--event", "types", metavar="TYPE", multiple=True, help="Only events of this type, or these.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=checked(since_value),
    help="Begin earlier than now: earliest, after an id, at unix milliseconds, or an age such as 10m.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line: id, channel, event and data.")
@remote_options
def command(
    channels: tuple[str, ...],
    types: tuple[str, ...],
    since: str | None,
    count: int | None,
    as_json: bool,
    url: str | None,
    token: str | None,
) -> None:
    """Print the data of events as they arrive.

    CHANNEL may be a pattern, 'orders:*'. When the connection is lost, or the service restarts, listening goes on where
    it was. Without --url the log that SSE_LOG names is read. What is told about the events goes to standard error.
    """
    # Half a surrogate pair, which a log may hold, is written as JSON writes it.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    last = None
    try:
        for message in _messages(channels, types, since, url, token):
            last = message.id or last
            if as_json:
                click.echo(json.dumps(_fields(message), ensure_ascii=False))
            elif message.event in CONTROL:
                say(f"{message.event}: {message.data}")
            else:
                click.echo(message.data)
            if count is not None and message.event not in CONTROL:
                count -= 1
                if count == 0:
                    return
    except KeyboardInterrupt:
        if last is not None and sys.stderr.isatty():
            say(f"to go on from here: --since {last}")
        sys.exit(130)  # as a shell has it for SIGINT


def _fields(message: Message) -> dict[str, str]:
    """In the order and with the names of ``?envelope=1``; what there is not is left out."""
    fields = {"channel": message.channel, "id": message.id, "event": message.event, "data": message.data}
    return {name: value for name, value in fields.items() if value is not None}


def _messages(
    channels: tuple[str, ...], types: tuple[str, ...], since: str | None, url: str | None, token: str | None
) -> Iterator[Message]:
    if url is not None:
        yield from service_at(url, token).listen(channels, types, since, say)
        return
    from .follow import follow

    with opened_log() as log:
        yield from follow(log, channels, types, since, say)
