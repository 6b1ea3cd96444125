"""``headwater log restore``: a backup becomes the log again."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import Failed, checked_settings, say
from ..local import log_tools
from ..progress import Progress
from .import_ import keep_notes

if TYPE_CHECKING:
    from ...sse.log import Tools
    from ...sse.settings import Settings


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also if the log is in use, or holds events: these are lost.")
def command(file: Path, force: bool) -> None:
    """Make the log that SSE_LOG names from FILE, a backup or an export.

    Every client with a cursor from before now is told that events may be missing, and gets what the log has. New ids
    are above all old ones.
    """
    from ...sse.log.archive import BadArchive
    from ...sse.log.base import LogError
    from ...sse.log.tools import Occupied

    settings = checked_settings()
    tools = log_tools(settings)
    try:
        with Progress("restoring") as progress:
            if not force:
                tools.check_free()
            count = tools.restore(str(file), progress.update, force=force)
            if count is None:
                count = _import(settings, tools, file, progress, force)
    except Occupied as error:
        raise Failed(str(error) if force else f"{error} (--force replaces what it holds)") from None
    except BadArchive as error:
        raise Failed(f"{file}: {error}; nothing was restored") from None
    except (LogError, OSError) as error:
        raise Failed(f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)) from None
    except KeyboardInterrupt:
        say("interrupted: the same command begins again")
        sys.exit(130)
    say(f"{count:,} events restored; clients with a cursor from before now are told that events may be missing")


def _import(settings: Settings, tools: Tools, file: Path, progress: Progress, force: bool) -> int:
    from ...sse.log.archive import Reader
    from ...sse.log.load import load

    size = file.stat().st_size
    with file.open("rb") as source:
        reader = Reader(source)
        load(reader, None, lambda count: progress.update(count, reader.size / size / 2))  # before anything is removed
        source.seek(0)
        again = Reader(source)
        with closing(tools.loader(force=force)) as loader:
            loaded = load(again, loader, lambda count: progress.update(count, 0.5 + again.size / size / 2))
            loader.finish(loaded.marks, tell=True)
    keep_notes(settings, loaded.notes)
    return loaded.records
