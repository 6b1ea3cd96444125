"""Durations and quantities as manifests, servers and proxies write them."""

from __future__ import annotations

import re

_UNITS = {"us": 1e-6, "µs": 1e-6, "ns": 1e-9, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|µs|ns|ms|s|m|h|d)")
_ISO = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", re.IGNORECASE)
_FOREVER = frozenset({"infinity", "infinite", "disabled", "none", "off", "-1"})

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

FOREVER = float("inf")


def seconds(text: str | None, unit: float = 1.0) -> float | None:
    """Read a duration in seconds: ``30``, ``30s``, ``1m30s``, ``PT30S``; FOREVER for ``infinity`` and the like.

    unit: in seconds, for a number without one. None if it is no duration.
    """
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) * unit
    if text.lower() in _FOREVER:
        return FOREVER
    if text and (iso := _ISO.fullmatch(text)):
        hours, minutes, rest = iso.groups()
        return float(hours or 0) * 3600 + float(minutes or 0) * 60 + float(rest or 0)
    parts = _PART.findall(text.lower())
    if parts and "".join(number + name for number, name in parts) == text.lower():
        return sum(float(number) * _UNITS[name] for number, name in parts)
    return None


def setting_seconds(name: str, value: str | None) -> float | None:
    """Read a duration from a variable, whose name may give the unit (``…_MS``); 1000 and more are milliseconds."""
    if value is None:
        return None
    if re.search(r"(_MS|MILLIS|MILLISECONDS)$", name, re.IGNORECASE):
        return seconds(value, 1e-3)
    if re.search(r"(_MIN|MINUTES)$", name, re.IGNORECASE):
        return seconds(value, 60.0)
    found = seconds(value)
    if found is not None and value.strip().isdigit() and found >= 1000 and not re.search(r"SEC", name, re.IGNORECASE):
        return found / 1000
    return found


def cpu(text: str | None) -> float | None:
    """Read cores: ``250m``, ``0.5``, ``2``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text.strip())
    return float(found[1]) / (1000 if found[2] else 1) if found else None


def memory(text: str | None) -> float | None:
    """Read bytes: ``512Mi``, ``1G``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?", text.strip())
    return float(found[1]) * _BINARY.get(found[2], 1) if found else None


def say(duration: float) -> str:
    """Format a duration: ``45 s``, ``1 h 51 min``."""
    if duration < 120:
        return f"{duration:g} s" if duration == round(duration, 1) else f"{duration:.1f} s"
    minutes = round(duration / 60)
    if minutes < 60:
        return f"{duration:g} s" if duration <= 600 and duration == int(duration) else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(number: int, what: str) -> str:
    """Format a count: ``1 stream``, ``2 streams``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
