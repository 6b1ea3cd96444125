"""The service's settings, from the environment: what gunicorn.conf.py and wsgi.py start with.

What the settings are is in :mod:`sse.settings`; here is what happens when one cannot be used.
"""

from __future__ import annotations

import os
import sys

from sse.settings import Settings, SettingsError, unknown_names

BAD_SETTINGS = 2    # exit status, that of a wrong command line: starting again changes nothing

_warned: set[str] = set()


def load() -> Settings:
    """Read and check the settings.

    One that cannot be used ends the process, with one line on stderr for each that says its name, its value
    (unless it is a secret) and what is allowed. The master process reads them first, so workers do not repeat
    it. Variables that look like settings and are none (a slip in the name) are pointed out, once.

    :raises SystemExit: with status 2.
    """
    for line in unknown_names(os.environ, {name.upper() for name in Settings.model_fields}):
        if line not in _warned:     # workers are forked from the master and have its set
            _warned.add(line)
            print(f"headwater: {line}", file=sys.stderr)
    try:
        return Settings.from_environ()
    except SettingsError as error:
        for line in error.lines:
            print(f"headwater: {line}", file=sys.stderr)
        raise SystemExit(BAD_SETTINGS) from None
