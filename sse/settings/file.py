"""Reads and parses the settings file (``SSE_CONFIG_FILE``): ``NAME=value`` lines, as in an env file.

Stricter than most env file readers, because a partial file must not pass for a complete one: an invalid line or a
duplicate name makes the file unusable. Error messages never quote the file, because the invalid line may contain a key.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..runtime.files import read_regular_file, reason
from .errors import SettingsError, near, shown

FILE_SETTING = "SSE_CONFIG_FILE"

# The size limit of a ConfigMap; protects us from, say, a log file named by mistake.
MAX_FILE_BYTES = 1 << 20

# Faults to report for one file; a wrong file would otherwise fill the log with one for every line.
_MAX_FAULTS = 5

# Upper case only, like the settings. (A line of a key without its quotes may look like a mixed-case name.)
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A parsed file: ``values`` and line numbers (``lines``) by setting name. Both empty if there is no file."""

    path: str = ""
    content: bytes = field(default=b"", repr=False)
    values: dict[str, str] = field(default_factory=dict, repr=False)
    lines: dict[str, int] = field(default_factory=dict)

    def where(self) -> dict[str, str]:
        """Return the file and line of each setting, for error messages."""
        return {name: f"{shown(self.path)}, line {number}" for name, number in self.lines.items()}

    def unknown(self, known: Iterable[str]) -> list[str]:
        """Return one line for each name that is not a setting: a typo, or from another version."""
        names = set(known)
        return [
            f"{shown(name)} in {self.where()[name]} is not a setting{near(name, names)}; it is ignored"
            for name in self.values
            if name not in names
        ]


def read_file(path: str) -> bytes:
    """Read the file at ``path``. Raises SettingsError."""
    try:
        return read_regular_file(path, MAX_FILE_BYTES)[1]
    except (OSError, ValueError) as error:
        raise _unusable(path, reason(error)) from None


def parse(path: str, content: bytes) -> SettingsFile:
    """Parse ``content``, read from ``path``. Raises SettingsError, with one line for each of the first faults."""
    from dotenv.parser import parse_stream  # imported here because most processes have no file

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unusable(path, "not UTF-8") from None
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    faults: list[str] = []
    for binding in parse_stream(io.StringIO(text)):
        # A binding includes the blank lines before it.
        source = binding.original.string
        number = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        name, value = binding.key, binding.value
        if name is None and not binding.error:
            continue  # a comment, or the end
        if name is None or value is None or not _NAME.fullmatch(name) or "\0" in value:
            faults.append(f"line {number} of {shown(path)} is not NAME=value")
        elif name == FILE_SETTING:
            faults.append(f"{name} cannot be set in the file that it names (line {number}): it must be set elsewhere")
        elif name in values:
            faults.append(f"{shown(name)} is set twice, in lines {lines[name]} and {number} of {shown(path)}")
        else:
            values[name], lines[name] = value, number
    if faults:
        raise SettingsError(faults[:_MAX_FAULTS])
    return SettingsFile(path, content, values, lines)


def _unusable(path: str, why: str) -> SettingsError:
    return SettingsError(
        [f"{FILE_SETTING}='{shown(path)}' cannot be used ({why}): it must be the path of a file of NAME=value lines"]
    )
