"""Prints the settings table for docs/settings.md from the class, so that the two cannot differ."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from .errors import allowed, bounds, is_live
from .model import Settings

# The first setting of each group, and the group's heading.
_GROUPS = {
    "host": "Listening",
    "sse_config_file": "The settings file",
    "log_level": "Logging",
    "sse_log": "The event log",
    "sse_retry": "Streams",
    "sse_max_event_bytes": "Publishing",
    "sse_run_flush": "Runs",
    "sse_read_header_timeout": "Time-outs and limits of connections",
    "sse_drain_delay": "Draining",
    "sse_auth": "Who may do what",
    "health_canary_max_age": "Health",
}

_HEAD = ("| setting | default | unit and range | live | what it is for |", "|---|---|---|---|---|")


def table() -> str:
    """Format all settings as Markdown, one table per group."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        if name in _GROUPS:
            lines += ["", f"## {_GROUPS[name]}", "", *_HEAD]
        live = "live" if is_live(field) else ""
        cells = (f"`{name.upper()}`", _default(field), _unit(field), live, field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{value}`".lower()
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:.12g}`" if isinstance(value, float | int) else f"`{value}`"


def _unit(field: FieldInfo) -> str:
    if field.annotation not in (int, float):
        return allowed(field)
    low, high = bounds(field)
    return f"{field.title or 'number'}, {low:.12g} to {high:.12g}"
