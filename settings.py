"""The service's settings, from the environment and the settings file: what gunicorn.conf.py and wsgi.py start with.

What the settings are is in :mod:`sse.settings`; here is what happens when one cannot be used.
"""

from __future__ import annotations

import logging
import os

from sse.observe import logging as logs
from sse.settings import Settings, SettingsError, last_good, unknown_names
from sse.settings.file import FILE_SETTING, parse

BAD_SETTINGS = 2    # exit status, that of a wrong command line: starting again changes nothing

_warned: set[str] = set()
# What this process, or the one that it was forked from, has loaded: the process, and the settings.
_loaded: tuple[int, Settings] | None = None


def load() -> Settings:
    """Read and check the settings.

    One that cannot be used ends the process, with one line on stderr for each that says its name, its value
    (unless it is a secret) and what is allowed. Variables that look like settings and are none (a slip in the
    name) are pointed out, once: the master process reads them first, so workers do not repeat it. Where the log is
    JSON, so are these lines.

    The settings file may have changed when a worker is replaced, or gunicorn reloads (SIGHUP). Then a file that
    cannot be used ends nothing: the last good one counts. And a worker has what cannot change without a restart from
    its master, whatever the file says now: it must not have another log, say, than its siblings.

    :raises SystemExit: with status 2.
    """
    global _loaded
    for line in unknown_names(os.environ, Settings.names()):
        if line not in _warned:     # workers are forked from the master and have its set
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
        except SettingsError:   # not in this process: what was kept has been in use
            pass
    return loaded


def _as_siblings(loaded: Settings, settings: Settings) -> Settings:
    try:
        return loaded.as_far_as_live(settings)[0]
    except SettingsError:       # what is new needs a restart
        return loaded
