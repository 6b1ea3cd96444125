"""``headwater log import``: an export becomes a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ..errors import Failed, checked_settings, say
from ..local import log_tools, opened_log
from ..progress import Progress

if TYPE_CHECKING:
    from ...sse.log.archive import Note
    from ...sse.settings import Settings


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path), default="-")
@click.option(
    "--moved",
    is_flag=True,
    help="The exported log has stored nothing since, and nobody uses it any more: clients need not be told anything.",
)
def command(file: Path, moved: bool) -> None:
    """Make the log that SSE_LOG names from an export, in FILE or from standard input.

    Events keep their ids, so the log has to be empty, and the service must not run. Clients that resume are told that
    events may be missing, but for --moved. An import that was interrupted is begun again; one that was done stores
    nothing.
    """
    from ...sse.log.archive import BadArchive, Reader
    from ...sse.log.base import LogError
    from ...sse.log.load import load
    from ...sse.log.tools import Occupied

    settings = checked_settings()
    tools = log_tools(settings)
    try:
        with file.open("rb") if str(file) != "-" else sys.stdin.buffer as source, Progress("importing") as progress:
            reader, size = Reader(source), _size_of(source)

            def show(count: int) -> None:
                progress.update(count, reader.size / size if size else None)

            try:
                tools.check_free()
            except Occupied as error:
                if not (before := tools.receipt()) or load(reader, None, show).receipt != before:
                    raise Failed(f"{error}; an import keeps ids, so it needs an empty log") from None
                say("this export is in the log already; nothing was imported")
                return
            with closing(tools.loader(force=False)) as loader:
                loaded = load(reader, loader, show)
                loader.finish(loaded.marks, tell=not moved, receipt=loaded.receipt)
        keep_notes(settings, loaded.notes)
    except BadArchive as error:
        raise Failed(f"{'standard input' if str(file) == '-' else file}: {error}; nothing was imported") from None
    except LogError as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        say("interrupted; nothing was imported")
        sys.exit(130)
    say(f"{loaded.records:,} events imported")
    if not moved:
        say("clients with a cursor from before now are told that events may be missing (--moved: they are not)")


def keep_notes(settings: Settings, notes: Iterable[Note]) -> None:
    """Put an export's notes into the log: whose access was taken back. Raises Failed."""
    from ...sse.auth.revoked import NOTE_KIND, REVOKED_SECONDS

    revoked = [note for note in notes if note.kind == NOTE_KIND]
    if revoked:
        with opened_log(settings) as log:
            for note in revoked:
                log.put_note(note.kind, note.name, note.value, REVOKED_SECONDS)


def _size_of(source: IO[bytes]) -> int:
    """Return how many bytes a file has; 0 for a pipe."""
    try:
        return os.fstat(source.fileno()).st_size
    except OSError:
        return 0
