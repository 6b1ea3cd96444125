"""Edits of a YAML text that leave every other byte as it is.

An emitter, even ruamel.yaml's round trip, changes the indentation of lists, line widths and blanks, and so lines that
nobody asked to change. So the parser only gives positions, and the edit is made in the text. ``repair`` parses the
result and compares; it drops an edit that came out wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .tree import Mark, Node

#: Width of a comment line, without its indentation.
_WIDTH = 110

#: Plain scalars that YAML 1.1 or a JSON reader would not take for text.
_SPECIAL = re.compile(
    r"(?i)(y|n|yes|no|on|off|true|false|null|~|[-+]?(\d[\d_.]*([eE][-+]?\d+)?|\.inf|\.nan|0x[\da-f]+|0o?[0-7]+)|\d+(:\d+)+)"
)
_PLAIN = re.compile(r"-{0,2}[A-Za-z0-9_./$][\w./$ @%+,=()-]*(:[\w./-]+)*")


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace a span; positions are (line, column) from 0."""

    start: Mark
    end: Mark
    text: str


def apply(text: str, edits: list[Edit]) -> str:
    """Apply all edits at once; none may overlap."""
    lines = split(text)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(mark: Mark) -> int:
        return min(starts[min(mark.line, len(lines))] + mark.column, len(text))

    parts: list[str] = []
    done = 0
    for edit in sorted(edits, key=lambda each: (each.start, each.end)):
        start = offset(edit.start)
        if start < done:
            raise ValueError("edits overlap")
        parts += [text[done:start], edit.text]
        done = offset(edit.end)
    return "".join([*parts, text[done:]])


def split(text: str) -> list[str]:
    """Split into lines with their ends, as YAML counts them (1.1, section 5.4)."""
    return re.findall(r"[^\r\n\x85\u2028\u2029]*(?:\r\n|[\r\n\x85\u2028\u2029])|[^\r\n\x85\u2028\u2029]+\Z", text)


def scalar(value: Any) -> str:
    """Write a scalar in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    text = str(value)
    if text and _PLAIN.fullmatch(text) and not _SPECIAL.fullmatch(text) and text.strip() == text and " #" not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def flow(value: Any) -> str:
    """Write a value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_in_flow(item) for item in value) + "]"
    return _in_flow(value)


def _in_flow(value: Any) -> str:
    if isinstance(value, dict | list):
        return flow(value)
    text = scalar(value)
    return f'"{text}"' if re.search(r"[,\[\]{}]", text) and not text.startswith('"') else text


def block(value: Any, indent: int) -> list[str]:
    """Write a mapping or list as lines, each with its indentation."""
    pad = " " * indent
    lines: list[str] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            lines += entry(key, inner, indent)
    else:
        for item in value:
            if isinstance(item, dict) and item:
                first, *rest = block(item, indent + 2)
                lines += [f"{pad}- {first.strip()}", *rest]
            else:
                lines.append(f"{pad}- {flow(item)}")
    return lines


def entry(key: str, value: Any, indent: int) -> list[str]:
    """Write ``key: value`` as lines."""
    pad = " " * indent
    if isinstance(value, dict | list) and value:
        return [f"{pad}{scalar(key)}:", *block(value, indent + 2)]
    if isinstance(value, str) and "\n" in value:
        return [f"{pad}{scalar(key)}: |" + ("" if value.endswith("\n") else "-"), *literal(value, indent + 2)]
    return [f"{pad}{scalar(key)}: {flow(value)}"]


def literal(value: str, indent: int) -> list[str]:
    pad = " " * indent
    return [f"{pad}{line}".rstrip() if not line.strip() else f"{pad}{line}" for line in value.rstrip("\n").split("\n")]


def comment(text: str, indent: int) -> list[str]:
    """Wrap a comment."""
    pad = " " * indent
    lines, here = [], ""
    for word in text.split():
        if here and len(here) + 1 + len(word) > _WIDTH - indent:
            lines.append(f"{pad}# {here}")
            here = word
        else:
            here = f"{here} {word}".strip()
    return [*lines, f"{pad}# {here}"] if here else lines


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def extent(node: Node, least: int, lines: list[str]) -> int:
    """Return the line after a node's last one, without the blank lines and comments that follow.

    least: the line at which it begins; an alias has only this one, because its node is elsewhere.
    """
    if node.start.line < least:
        return least + 1
    if node.kind == "text" and node.style in ("|", ">"):
        last = node.end.line if node.end.column else node.end.line - 1
        last = min(last, len(lines) - 1)
        while last > node.start.line and not lines[last].strip():
            last -= 1
        return last + 1
    if node.flow:
        return node.end.line + 1
    if node.kind == "list":
        return extent(node.items[-1], node.items[-1].start.line, lines) if node.items else node.end.line + 1
    key, value = max(node.entries.values(), key=lambda entry: entry[0].start)
    return extent(value, key.start.line, lines)
