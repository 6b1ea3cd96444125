"""``headwater log backup``: a copy of the log, made while the service runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import Failed, checked_settings, say
from ..local import log_tools, opened_log
from ..progress import Progress

if TYPE_CHECKING:
    from ...sse.settings import Settings


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE, once the new backup is whole.")
def command(file: Path, force: bool) -> None:
    """Write a copy of the log to FILE, from which restore makes the log again.

    It has every event that was stored before it began. Of a SQLite log it is a SQLite file, of a Redis log an export.
    """
    from ...sse.log.base import LogError

    settings = checked_settings()
    tools = log_tools(settings)
    if file.exists() and not force:
        raise Failed(f"{file} is there: --force replaces it")
    try:
        with opened_log(settings, create=False), Progress("copying") as progress:
            count = tools.backup(str(file), progress.update)
            if count is None:
                count = _export(settings, file, progress)
    except (LogError, OSError) as error:
        raise Failed(f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)) from None
    except KeyboardInterrupt:
        say("interrupted; there is no backup")
        sys.exit(130)
    say(f"{count:,} events in {file}, {file.stat().st_size:,} bytes")


def _export(settings: Settings, file: Path, progress: Progress) -> int:
    from ...sse.auth.revoked import NOTE_KIND
    from ...sse.log.export import export

    new = file.with_name(file.name + "-new")
    try:
        with opened_log(settings) as log, open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            count, _ = export(log, out.write, 0, [NOTE_KIND], progress=progress.update)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    return count
