"""Loads the service's settings from the environment and the settings file, for gunicorn's configuration and the app.

:mod:`sse.settings` defines the settings; this module handles invalid ones.
"""

from __future__ import annotations

import logging
import os

from ..observe import logging as logs
from ..settings import Settings, SettingsError, last_good, unknown_names
from ..settings.file import FILE_SETTING, parse

BAD_SETTINGS = 2    # exit status, as for a wrong command line: a restart would not help

_warned: set[str] = set()
# The settings that this process or its parent has loaded, with the loader's process ID.
_loaded: tuple[int, Settings] | None = None


def load() -> Settings:
    """Read and check the settings.

    An invalid setting ends the process, with one line on stderr for each: its name, its value (unless it is a
    secret) and what is allowed. Variables that look like misspelt settings cause a warning, once: the master process
    reads them first, so workers do not repeat it. If the log is JSON, so are these lines.

    The settings file may have changed when a worker is replaced or gunicorn reloads (SIGHUP). If it is invalid then,
    the process continues with the last good one. A worker takes settings that need a restart from its master,
    whatever the file says now: it must not, for example, log differently from its siblings.

    Raises SystemExit with status 2.
    """
    global _loaded
    for line in unknown_names(os.environ, Settings.names()):
        if line not in _warned:     # workers inherit the master's set when forked
            _warned.add(line)
            _say(line, logging.WARNING)
    try:
        settings = Settings.from_environ()
    except SettingsError as error:
        for line in error.lines:
            _say(line, logging.ERROR)
        if _loaded is None:
            raise SystemExit(BAD_SETTINGS) from None
        _say("the last settings that could be used still count", logging.ERROR)
        settings = _last_good(_loaded[1])
    if _loaded is not None and _loaded[0] != os.getpid():
        return _as_siblings(_loaded[1], settings)
    _loaded = os.getpid(), settings
    if settings.sse_config_file is not None:
        last_good.share()
    return settings


def _say(line: str, level: int) -> None:
    logs.say(line, level, os.environ.get("LOG_FORMAT", "auto"))


def _last_good(loaded: Settings) -> Settings:
    content = last_good.last()
    if content is not None:
        try:
            return Settings.from_environ(parse(os.environ[FILE_SETTING], content))
        except SettingsError:   # cannot happen in this process: the kept content has been in use
            pass
    return loaded


def _as_siblings(loaded: Settings, settings: Settings) -> Settings:
    try:
        return loaded.as_far_as_live(settings)[0]
    except SettingsError:       # the change needs a restart
        return loaded
