"""Watches the settings file: each worker polls it and applies changes to its settings.

Why polling, not a signal or inotify: to update a ConfigMap volume, the kubelet does not write the file but swaps a
symbolic link two directories above it (``..data``), and an editor renames another file into place. Comparing the
content detects all of these, and reading a few kilobytes twice a second costs microseconds. gunicorn uses the signals
for other things.

We apply new content once two successive reads agree, so that a partly written file does not count.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from ..runtime.cooperation import offload
from .errors import SettingsError
from .file import parse, read_file
from .last_good import keep
from .model import Settings

logger = logging.getLogger("headwater.settings")

POLL_INTERVAL: Final = 0.5  # seconds


class Watch:
    """Keeps ``settings`` in step with their file. Without a file it does nothing, and starts no thread.

    tell: called with True when the file is invalid, with False when it is valid.
    """

    def __init__(self, settings: Settings, tell: Callable[[bool], None] = lambda refused: None) -> None:
        self._settings = settings
        self._tell = tell
        self._path = "" if settings.sse_config_file is None else str(settings.sse_config_file)
        # The content, or what is wrong with the file: as last read, and as last acted on.
        self._seen: bytes | str | None = None
        self._done: bytes | str | None = None
        self._trouble = False
        self._restart: list[str] = []  # the changes last logged as waiting for a restart
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start polling in this process. Idempotent."""
        if not self._path or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="sse-settings", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        failing = ""
        while not self._stop.wait(POLL_INTERVAL):
            try:
                self.poll()
            except Exception as error:  # its text might quote a value
                if type(error).__name__ != failing:
                    failing = type(error).__name__
                    logger.error("checking %s failed: %s (logged once)", self._path, failing)
            else:
                failing = ""

    def poll(self) -> None:
        """Read the file once, and act on a change."""
        now = offload(self._read)  # its disk may be slow
        before, self._seen = self._seen, now
        if now == self._done or now != before:
            return
        self._done = now
        if isinstance(now, str):
            self._refuse("%s; all settings stay as they are", now)
        else:
            self._take(now)

    def _read(self) -> bytes | str:
        """Return the file's content, or what is wrong with it."""
        try:
            return read_file(self._path)
        except SettingsError as error:
            return "; ".join(error.lines)

    def _take(self, content: bytes) -> None:
        settings = self._settings
        try:
            file = parse(self._path, content)
            new = settings.again(file)
            mixed, waiting = settings.as_far_as_live(new)
            change = settings.become(mixed)
        except ValueError as error:
            lines = error.lines if isinstance(error, SettingsError) else [str(error)]
            self._refuse("%s is refused, all settings stay as they are: %s", self._path, "; ".join(lines))
            return
        for line in file.unknown(settings.names()):
            logger.warning("%s", line)
        differences = settings.differences(mixed)
        if differences:
            self._exchange(change, ", ".join(differences))
        elif self._trouble:
            logger.info("%s can be used again; no setting has changed", self._path)
        self._trouble = False
        self._tell(False)
        keep(content)
        restart = settings.differences(new, waiting)
        if restart and restart != self._restart:
            logger.warning("%s: a restart is needed for %s", self._path, ", ".join(restart))
        self._restart = restart

    def _refuse(self, message: str, *values: str) -> None:
        self._trouble = True
        self._tell(True)
        logger.error(message, *values)

    def _exchange(self, change: Callable[[], None], differences: str) -> None:
        # Log before or after, so that a change of the log level does not suppress this line.
        early = logger.isEnabledFor(logging.INFO)
        if early:
            logger.info("%s has changed: %s", self._path, differences)
        change()
        if not early:
            logger.info("%s has changed: %s", self._path, differences)
