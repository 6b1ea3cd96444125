"""``headwater log export``: the log as lines of JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ..errors import Failed, say
from ..local import opened_log
from ..progress import Progress
from ..values import checked
from ..values import since as since_value


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default="-")
@click.option(
    "--since", metavar="WHEN", callback=checked(since_value), help="Only what follows an id, a unix time in ms, or 10m."
)
def command(file: Path, since: str | None) -> None:
    """Write the log to FILE, or to standard output, as lines of JSON.

    It has every event that was stored before it began, with its id. A FILE that is there is gone on with: what the log
    has after its last id is added, whether the export before was interrupted or not.
    """
    from ...sse.auth.revoked import NOTE_KIND
    from ...sse.events.model import format_id, parse_since
    from ...sse.log.archive import BadArchive
    from ...sse.log.export import export

    name = "the export" if str(file) == "-" else str(file)
    try:
        with opened_log(create=False) as log, _opened(file) as (out, behind), Progress("exporting") as progress:
            if behind is not None and since is not None:
                raise click.UsageError(f"{file} is there: it is gone on with after its last id, without --since")
            begin = behind or (parse_since(since) if since else 0)
            count, end = export(
                log, out.write, begin, [NOTE_KIND], behind=behind is not None, progress=progress.update
            )
    except BadArchive as error:
        raise Failed(f"{file}: {error}") from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise  # who read it has heard enough
        raise Failed(f"{file}: {error.strerror}") from None
    except KeyboardInterrupt:
        say("interrupted" if name == "the export" else f"interrupted: the same command goes on with {file}")
        sys.exit(130)
    say(f"{count:,} events, through {format_id(end.through)}")
    if end.gone:
        say(f"events up to {format_id(end.gone)} were trimmed before they could be read")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[IO[bytes], int | None]]:
    """Open the file, behind its last whole line; and the last id that is in it, None for a new one."""
    if str(file) == "-":
        yield sys.stdout.buffer, None
        sys.stdout.flush()
        return
    with open(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as out:
        yield out, _end_of(out)
        out.flush()
        os.fsync(out.fileno())


def _end_of(out: IO[bytes]) -> int | None:
    """Find where to go on, and remove a line that is not whole. Raises BadArchive."""
    from ...sse.log.archive import Reader, Torn

    if out.seek(0, os.SEEK_END) == 0:
        return None
    out.seek(0)
    reader = Reader(out)
    with Progress("reading what is there") as progress:
        try:
            for n, _ in enumerate(reader.items()):
                progress.update(n)
        except Torn:
            out.truncate(reader.size)
    out.seek(reader.size)
    return reader.position if reader.size else None
