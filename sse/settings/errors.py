"""Reports invalid settings: one line each, with name, value and what is allowed.

Values are escaped (a line break must not forge a second line) and truncated; secrets and passwords in URLs never
appear.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from ..runtime.redaction import MASK, redact_url

_SHOWN = 120    # characters of a value; a pasted file must not fill the terminal
PREFIXES = ("SSE_", "HEALTH_")

# Variables that Kubernetes sets in every container for a Service named, for example, `sse` or `health`
# (https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables).
# We recognise the plain `<NAME>_PORT` among them by its value.
_SERVICE_LINK = re.compile(
    r".+_SERVICE_HOST|.+_SERVICE_PORT(_[A-Z0-9_]+)?|.+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+", re.IGNORECASE)


class SettingsError(ValueError):
    """One or more settings are invalid. ``lines`` has one line for each, without secrets."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


def is_service_address(value: object) -> bool:
    """True for a value that Kubernetes gives ``<NAME>_PORT`` for a Service, such as ``tcp://10.0.0.7:8081``."""
    return isinstance(value, str) and bool(_SERVICE_ADDRESS.fullmatch(value.strip()))


def unknown_names(environ: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Return one line for each variable that looks like a setting but is none, which is most likely a typo.

    known: the names of all settings.
    """
    lines = []
    for name in sorted(environ):
        if not name.startswith(PREFIXES) or name in known or _SERVICE_LINK.fullmatch(name):
            continue
        if name.endswith("_PORT") and is_service_address(environ[name]):
            continue
        lines.append(f"{shown(name)} is not a setting{near(name, known)}; it is ignored")
    return lines


def near(name: str, known: Collection[str]) -> str:
    """Suggest the closest setting name, as a question; empty if none is close."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f" (did you mean {found[0]}?)" if found else ""


def shown(text: str) -> str:
    """Make ``text`` safe for a log line: printable, and truncated."""
    safe = text if text.isprintable() else ascii(text)[1:-1]
    return safe if len(safe) <= _SHOWN else f"{safe[:_SHOWN]}…"


def is_secret(field: FieldInfo) -> bool:
    """True if this setting's value must never be shown."""
    return "SecretStr" in str(field.annotation)


def is_live(field: FieldInfo) -> bool:
    """True if a change in the settings file takes effect without a restart."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("live"))


def allowed(field: FieldInfo) -> str:
    """Describe the allowed values, in words that follow "must be"."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("allowed"):
        return str(extra["allowed"])
    kind = "a whole number" if field.annotation is int else "a number"
    unit = f" of {field.title}" if field.title else ""
    low, high = bounds(field)
    return f"{kind}{unit} from {low:.12g} to {high:.12g}"


def bounds(field: FieldInfo) -> tuple[float, float]:
    """Return the minimum and maximum of a number."""
    low: Any = next(m.ge for m in field.metadata if hasattr(m, "ge"))
    high: Any = next(m.le for m in field.metadata if hasattr(m, "le"))
    return low, high


def line(name: str, value: object, field: FieldInfo, reason: str = "") -> str:
    """Return the line for an invalid setting."""
    if is_secret(field):
        text = MASK
    elif isinstance(value, str):
        text = f"'{shown(redact_url(value))}'"
    else:
        text = shown(repr(value))
    because = f" ({reason})" if reason else ""
    return f"{name}={text} cannot be used{because}: it must be {allowed(field)}"


def written(value: object, field: FieldInfo) -> str:
    """Format a setting's value for a log, with secrets hidden."""
    if value is None or value in ((), ""):
        return "none"
    if is_secret(field):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.12g}"
    return shown(",".join(value) if isinstance(value, tuple) else redact_url(str(value)))


def explain(
    error: ValidationError, fields: Mapping[str, FieldInfo], where: Mapping[str, str] | None = None
) -> SettingsError:
    """Convert pydantic's error: one line per invalid setting or conflict.

    fields: the model's fields, by attribute name.
    where: the file and line of each setting in the settings file, by name.
    """
    where = where or {}
    lines: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        context = problem.get("ctx", {})
        if problem["type"] == "conflict":
            lines |= {text: text for text in context["lines"]}
            continue
        name = str(problem["loc"][0]).upper()
        field = fields.get(name.lower())
        if field is None:
            lines.setdefault(name, f"{shown(name)} is not a setting")
            continue
        value = problem["input"]
        if isinstance(value, SecretStr):
            value = MASK
        reason = str(context["error"]) if problem["type"] == "value_error" else ""
        place = f" ({where[name]})" if name in where else ""
        lines.setdefault(name, line(name, value, field, reason) + place)
    return SettingsError(lines.values())
