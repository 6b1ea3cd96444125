"""The log that SSE_LOG names, opened by a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import Failed, checked_settings, say

if TYPE_CHECKING:
    from ..sse.log import Log, Tools
    from ..sse.settings import Settings


@contextmanager
def opened_log(settings: Settings | None = None, *, create: bool = True) -> Iterator[Log]:
    """Open the log, and close it in the end.

    A log in memory is refused: it would be this process's own. That a file was made is said, because it may be a slip:
    the default, sqlite:///var/headwater.db, is below the working directory.

    create: make the file if there is none; else that is a failure.

    Raises Failed, BadSettings; Failed for a LogRefused or LogUnavailable in the place where the log is used, too.
    """
    from ..sse.log import LogRefused, LogUnavailable, check_url, open_log, sqlite

    settings = checked_settings() if settings is None else settings
    if not check_url(settings.sse_log).shared:
        raise Failed("SSE_LOG=memory: is in the service's own memory, out of this command's reach; use --url")
    if settings.sse_log.startswith("sqlite:") and not (file := Path(sqlite.check_url(settings.sse_log).path)).exists():
        if not create:
            raise Failed(f"there is no log at {file.absolute()} (SSE_LOG)")
        say(f"a new log is made at {file.absolute()} (SSE_LOG)")
    try:
        log = open_log(
            settings.sse_log,
            retain_events=settings.sse_retain_events,
            retain_seconds=settings.sse_retain_seconds,
            options=vars(settings),
        )
    except (LogRefused, LogUnavailable) as error:
        raise Failed(str(error)) from None
    with closing(log):
        try:
            yield log
        except (LogRefused, LogUnavailable) as error:
            raise Failed(str(error)) from None


def log_tools(settings: Settings) -> Tools:
    """Return what is done to the whole log that SSE_LOG names. Raises Failed."""
    from ..sse.log import open_tools

    try:
        return open_tools(settings.sse_log, vars(settings))
    except ValueError as error:
        raise Failed(str(error)) from None
