"""``headwater publish``: one event, or one for each line, into the log or to a service at a URL."""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .errors import Failed, checked_settings
from .local import opened_log
from .messages import NotNow
from .values import channel as channel_name
from .values import checked
from .where import remote_options, service_at

if TYPE_CHECKING:
    from ..sse.log import Log

# (channel, data, type, idempotency key) → id. Raises NotNow, Failed.
Publish = Callable[[str, str, str | None, str], str]


@click.command("publish")
@click.argument("channel", callback=checked(channel_name))
@click.argument("data", required=False)
@click.option("-e", "--event", metavar="TYPE", help="The event's type.")
@click.option("--lines", is_flag=True, help="Publish each line of standard input as an event, as it arrives.")
@click.option("--key", metavar="KEY", help="Idempotency-Key: repeating the call with it stores the event once.")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to try again while nothing answers. No event is stored twice by that.",
)
@remote_options
def command(
    channel: str,
    data: str | None,
    event: str | None,
    lines: bool,
    key: str | None,
    timeout: float,
    url: str | None,
    token: str | None,
) -> None:
    """Publish an event, and print its id.

    DATA is read from standard input if it is left out or -, without the line end at its end. Without --url the event is
    written into the log that SSE_LOG names.
    """
    if lines and (data not in (None, "-") or key is not None):
        raise click.UsageError("--lines reads standard input, and makes a key for each line: leave DATA and --key out")
    with _publisher(url, token) as publish:
        for text in _lines() if lines else [_all() if data in (None, "-") else data]:
            click.echo(_patiently(publish, channel, str(text), event, key or uuid.uuid4().hex, timeout))


def _all() -> str:
    return _text(sys.stdin.buffer.read()).removesuffix("\n").removesuffix("\r")


def _lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield _text(line).removesuffix("\n").removesuffix("\r")


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise Failed(f"an event is text in UTF-8; byte {error.start} of the input is none") from None


def _patiently(publish: Publish, channel: str, data: str, event: str | None, key: str, timeout: float) -> str:
    """Publish; while nothing answers, again with the same key. Raises Failed."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return publish(channel, data, event, key)
        except NotNow as error:
            pause = max(error.retry_after, 0.2) * random.uniform(1, 1.5)
            if time.monotonic() + pause > deadline:
                known = "it is not stored" if error.stored == "no" else "whether it is stored is unknown"
                raise Failed(f"{error}; {known} (--key {key} repeats it safely)") from None
            time.sleep(pause)


@contextmanager
def _publisher(url: str | None, token: str | None) -> Iterator[Publish]:
    if url is not None:
        yield service_at(url, token).publish
        return
    settings = checked_settings()
    with opened_log(settings) as log:
        yield _into(log, settings.sse_max_event_bytes)


def _into(log: Log, most_bytes: int) -> Publish:
    from ..sse.events.digest import digest_of, scoped
    from ..sse.events.model import Event, InvalidEvent, format_id
    from ..sse.log import ChannelClosed, IdempotencyConflict, LogRefused, LogUnavailable

    def publish(channel: str, data: str, event: str | None, key: str) -> str:
        try:
            events = [Event(channel, data, event)]
        except InvalidEvent as error:
            raise click.UsageError(str(error)) from None
        if len(data.encode()) > most_bytes:
            raise Failed(f"an event is at most {most_bytes} bytes (SSE_MAX_EVENT_BYTES)")
        try:
            return format_id(log.append(events, key=scoped(key, events), digest=digest_of(events))[0])
        except LogUnavailable as error:
            raise NotNow(str(error), error.retry_after, error.stored) from None
        except (ChannelClosed, IdempotencyConflict, LogRefused) as error:
            raise Failed(str(error)) from None

    return publish
