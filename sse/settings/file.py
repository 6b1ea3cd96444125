"""The settings file (``SSE_CONFIG_FILE``): ``NAME=value`` lines, as in an env file. Text in, values out.

Stricter than env files usually are, because half a file must not pass for a whole one: a line that cannot be
read, or a name that comes twice, makes the file unusable. What is said about it never quotes it: the line that is
broken may be a key's.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import SettingsError, near, shown

FILE_SETTING = "SSE_CONFIG_FILE"

# As much as a ConfigMap may hold; somebody's log file named by mistake is not read into memory.
MAX_FILE_BYTES = 1 << 20

# Upper case only, as the settings are. (A line of a key that lost its quotes may look like a name in mixed case.)
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What one file says: ``values`` by the settings' names; ``lines`` has the place of each. None: no file."""

    path: str = ""
    content: bytes = field(default=b"", repr=False)
    values: dict[str, str] = field(default_factory=dict, repr=False)
    lines: dict[str, int] = field(default_factory=dict)

    def where(self) -> dict[str, str]:
        """The place of each setting, for whoever has to mend it."""
        return {name: f"{shown(self.path)}, line {number}" for name, number in self.lines.items()}

    def unknown(self, known: Iterable[str]) -> list[str]:
        """One line for each name that is no setting: most likely a slip, or of another version."""
        names = set(known)
        return [
            f"{shown(name)} in {self.where()[name]} is not a setting{near(name, names)}; it is ignored"
            for name in self.values
            if name not in names
        ]


def read_file(path: str) -> bytes:
    """The content of the file at ``path``. Raises SettingsError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _unusable(path, "not a regular file")  # a pipe would block for ever
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise _unusable(path, reason or type(error).__name__) from None
    if len(content) > MAX_FILE_BYTES:
        raise _unusable(path, f"larger than {MAX_FILE_BYTES} bytes")
    return content


def parse(path: str, content: bytes) -> SettingsFile:
    """What ``content``, read from ``path``, says. Raises SettingsError with a line for each fault."""
    from dotenv.parser import parse_stream  # only now: most run without a file

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unusable(path, "not UTF-8") from None
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    faults: list[str] = []
    for binding in parse_stream(io.StringIO(text)):
        # Blank lines in front belong to the binding.
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


# Lines about one file: some other file that was named by mistake is not answered line by line.
_MAX_FAULTS = 5


def _unusable(path: str, reason: str) -> SettingsError:
    return SettingsError(
        [f"{FILE_SETTING}='{shown(path)}' cannot be used ({reason}): it must be the path of a file of NAME=value lines"]
    )
