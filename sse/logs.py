"""Where log lines go and how they look: JSON in a container, readable in a terminal."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from sse.settings import Settings


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


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
        "loggers": {
            "gunicorn.error": {"level": level, "handlers": ["out"], "propagate": False},
            "headwater": {"level": level, "handlers": ["out"], "propagate": False},
        },
    }
