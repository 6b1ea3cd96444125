"""Where log lines go and how they look: JSON in a container, readable in a terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from sse.settings import Settings

# What may stand in a text line unquoted.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:/*,@+~[]")


class Line:
    """A log line that is made of fields: ``logger.info(Line("stream", client=…, events=…))``. As JSON they are members
    beside ``message``, which is the kind; as text they are ``name=value`` pairs after it.

    Whatever came from outside is quoted by JSON's rules, so that no request can forge a line or a field (threat: log
    injection).
    """

    __slots__ = ("fields", "kind")

    def __init__(self, kind: str, **fields: str | int | float) -> None:
        self.kind = kind
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={quoted(value)}" for name, value in self.fields.items())])


def quoted(value: object) -> str:
    """A value that cannot end its field or its line."""
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, a :class:`Line`'s fields, and the traceback
    if there is one."""

    _second: tuple[int, str] = (0, "")  # the last one, and its text: there are many lines in each

    def format(self, record: logging.LogRecord) -> str:
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text
        stamp = f"{text}.{int(record.msecs):03d}Z"
        level = record.levelname.lower()
        message = record.msg
        if isinstance(message, Line):
            own = {"time": stamp, "level": level, "logger": record.name, "message": message.kind, **message.fields}
            # In ASCII: what else ends a line for some viewer (U+0085, U+2028) is escaped, too.
            return json.dumps(own)
        line = {"time": stamp, "level": level, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


# What libraries have to say is kept to warnings.
_OURS = ("gunicorn.error", "headwater")


def follow(settings: Settings) -> None:
    """Have the level changed with the settings."""

    def prepare(new: Settings) -> Callable[[], None]:
        def change() -> None:
            for name in _OURS:
                logging.getLogger(name).setLevel(new.log_level.upper())

        return change

    settings.on_change(prepare)


def config(settings: Settings) -> dict[str, Any]:
    """A ``logging.config`` dictionary for gunicorn's ``logconfig_dict``: everything to standard output."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty())
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {"()": JsonFormatter},
            "text": {"format": "%(asctime)s %(process)d %(levelname).1s %(name)s: %(message)s", "datefmt": "%H:%M:%S"},
        },
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "json" if as_json else "text",
            }
        },
        "root": {"level": "WARNING", "handlers": ["out"]},
        "loggers": {name: {"level": level, "handlers": ["out"], "propagate": False} for name in _OURS},
    }
