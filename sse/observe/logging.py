"""Where log lines go and how they look: JSON in a container, readable in a terminal.

A program that reads JSON lines stops at the first line that is not JSON. So whatever Python and gevent would print to
standard error is logged, too (:func:`capture`), and so are messages before logging is set up (:func:`say`).
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..runtime.lines import Line
from ..settings import Settings

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

logger = logging.getLogger("headwater")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, a :class:`Line`'s fields, traceback."""

    _second: tuple[int, str] = (0, "")  # the last second and its text, because many lines share it

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
            # In ASCII, so that characters at which some viewers end a line (U+0085, U+2028) are escaped, too.
            return json.dumps(own)
        line = {"time": stamp, "level": level, "logger": record.name, "message": _message(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # A path may contain half a surrogate pair, which UTF-8 cannot encode. Python's escape for it is valid JSON.
        return json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace").decode()


def _message(record: logging.LogRecord) -> str:
    """Return the record's text, even if its arguments do not fit (``logging`` would print a traceback)."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args!r}"


# These loggers follow LOG_LEVEL; all others are limited to warnings.
_OURS = ("gunicorn.error", "headwater")


def follow(settings: Settings) -> None:
    """Keep the log level in step with the settings."""

    def prepare(new: Settings) -> Callable[[], None]:
        def change() -> None:
            for name in _OURS:
                logging.getLogger(name).setLevel(new.log_level.upper())

        return change

    settings.on_change(prepare)


def config(settings: Settings) -> dict[str, Any]:
    """Return a ``logging.config`` dictionary for gunicorn's ``logconfig_dict``: everything goes to standard output."""
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
                "formatter": "json" if _as_json(settings.log_format) else "text",
            }
        },
        "root": {"level": "WARNING", "handlers": ["out"]},
        "loggers": {name: {"level": level, "handlers": ["out"], "propagate": False} for name in _OURS},
    }


def _as_json(log_format: str) -> bool:
    return log_format == "json" or (log_format != "text" and not sys.stdout.isatty())


def say(message: str, level: int, log_format: str) -> None:
    """Write one line to standard error, in :func:`config`'s form, before logging is set up."""
    line = f"headwater: {message}"
    if _as_json(log_format):
        line = JsonFormatter().format(logger.makeRecord("headwater", level, "", 0, message, (), None))
    print(line, file=sys.stderr, flush=True)


# ── unhandled exceptions ──────────────────────────────────────────────────────────────────────────────────────


def capture() -> None:
    """Log warnings and unhandled exceptions (of threads, destructors and greenlets) instead of printing them.

    Call it only in a process of our own; its forked children inherit it.
    """
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable
    if (hub := sys.modules.get("gevent.hub")) is not None:
        hub.Hub.print_exception = _in_greenlet


def _report(where: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    try:
        logger.error("nobody handled %s in %s", kind.__name__, where, exc_info=(kind, error or kind(), trace))
    except Exception:  # the process is ending, and logging may no longer work
        traceback.print_exception(kind, error, trace)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _report("the main thread", kind, error, trace)


def _in_thread(args: threading.ExceptHookArgs) -> None:
    if not issubclass(args.exc_type, SystemExit):
        name = "a thread" if args.thread is None else f"thread {args.thread.name}"
        _report(name, args.exc_type, args.exc_value, args.exc_traceback)


def _unraisable(args: UnraisableHookArgs) -> None:
    _report(f"{args.object!r}" if args.object else "a destructor", args.exc_type, args.exc_value, args.exc_traceback)


def _in_greenlet(
    hub: object, context: object, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Replace gevent's ``Hub.print_exception``."""
    _report(f"{context!r}", kind, error, trace)
