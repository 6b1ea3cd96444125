"""Repairs: a finding's changes as a YAML patch to show, and as edits of the manifest's own text (--fix).

Each document is edited separately, one change after the other, and parsed again after each. An edit is kept only if the
result is the old document with exactly that change. So unknown YAML syntax can cost a repair, but never break a
manifest.
"""

from __future__ import annotations

import bisect
import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import edit
from .edit import Edit
from .errors import CannotRun
from .finding import DELETE, RISKS, Change, Finding, Swap
from .load import Loaded
from .place import Place
from .tree import Mark, Node, parse, plain

#: Rounds of repairing and examining again. Two are usual: a longer hook needs a longer grace period.
_ROUNDS = 5

Examine = Callable[[Loaded], list[Finding]]


@dataclass
class Repaired:
    """What --fix has done."""

    texts: dict[str, str]
    done: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)  # what YAML cannot repair, or the editor cannot write


def repair(loaded: Loaded, examine: Examine, reload: Callable[[dict[str, str]], Loaded]) -> Repaired:
    """Repair until nothing changes, so that a second run has nothing to do."""
    done: list[Finding] = []
    findings = examine(loaded)
    for _ in range(_ROUNDS):
        files = {name: _File(text) for name, text in loaded.texts.items()}
        repaired = [finding for finding in findings if finding.severity >= RISKS and _apply(finding, files)]
        if not repaired:
            break
        done += repaired
        loaded = reload({name: file.text for name, file in files.items()})
        findings = examine(loaded)
    return Repaired(loaded.texts, done, [finding for finding in findings if finding.severity >= RISKS])


class _File:
    """A text in parts, one per document; any line that begins with ``---`` is a marker."""

    def __init__(self, text: str) -> None:
        lines = edit.split(text)
        cuts = [number for number, line in enumerate(lines) if re.match(r"---(\s|$)", line)]
        bounds = [0, *cuts, len(lines)]
        self.parts = ["".join(lines[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]
        self._starts = bounds[:-1]

    def part_of(self, line: int) -> int:
        """Return the number of the part that had a line (from 0) when the text was read."""
        return bisect.bisect_right(self._starts, line) - 1

    @property
    def text(self) -> str:
        return "".join(self.parts)


def _apply(finding: Finding, files: dict[str, _File]) -> bool:
    """Make a finding's changes in their file's text, all of them or none."""
    changed: dict[tuple[str, int], str] = {}
    for change in finding.changes:
        object = change.place.object
        where = object.file, files[object.file].part_of(object.root.start.line)
        part = changed.get(where, files[object.file].parts[where[1]])
        repaired = change_text(part, (*object.trail, *change.place.path), change, finding.rule.id)
        if repaired is None:
            return False
        changed[where] = repaired
    for (name, number), part in changed.items():
        files[name].parts[number] = part
    return bool(changed)


def change_text(text: str, path: tuple[str | int, ...], change: Change, rule: str = "") -> str | None:
    """Make one change in one document; None if that is impossible."""
    try:
        root = _only(parse(text, "document"))
        if root is None:
            return None
        wanted = changed(plain(root), path, change.value)
        if wanted == plain(root):
            return None
        why = f"{rule}: {change.why}" if rule and change.why else change.why
        edits = _Editor(text, root).edits(path, change.value, why)
        result = edit.apply(text, edits)
        if "\r\n" in text:
            result = re.sub(r"(?<!\r)\n", "\r\n", result)
        return result if plain(_only(parse(result, "document"))) == wanted else None
    except (CannotRun, ValueError, LookupError, TypeError, AttributeError):
        return None  # the document has another shape than the change expects


def _only(documents: list[Node]) -> Node | None:
    return documents[0] if len(documents) == 1 else None


def changed(value: Any, path: Sequence[str | int], new: Any) -> Any:
    """Make one change in plain data; missing lists and mappings are added."""
    value = copy.deepcopy(value)
    here = value
    for step in path[:-1]:
        if isinstance(step, int):
            here = here[step]
        else:
            if here.get(step) is None:
                here[step] = {}
            here = here[step]
    last = path[-1]
    if new is DELETE:
        del here[last]
        if not here and len(path) > 1 and isinstance(last, str):
            return changed(value, path[:-1], DELETE)
    elif isinstance(new, Swap):
        items = [(new.key, _texts(new.value)) if key == last else (key, inner) for key, inner in here.items()]
        here.clear()
        here.update(items)
    else:
        here[last] = _texts(new)
    return value


def _texts(value: Any) -> Any:
    """Turn scalars into text, as `plain` does."""
    if isinstance(value, dict):
        return {str(key): _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)


class _Editor:
    """Finds the edits that make one change."""

    def __init__(self, text: str, root: Node) -> None:
        self._lines = edit.split(text)
        self._root = root
        self._json = text.lstrip().startswith("{")  # JSON has no comments, and quotes everything

    def _scalar(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False) if self._json else edit.scalar(value)

    def _flow(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False) if self._json else edit.flow(value)

    def edits(self, path: tuple[str | int, ...], value: Any, why: str) -> list[Edit]:
        node, depth = self._root, 0
        while depth < len(path) - 1:
            step = path[depth]
            below = node.items[step] if isinstance(step, int) else node.get(step)
            if below is None or below.null:
                break
            node, depth = below, depth + 1
        rest = path[depth:]
        if value is DELETE:
            return self._delete(path, why)
        for step in reversed(rest[1:]):
            value = {step: value}
        key = rest[0]
        if isinstance(key, int):
            return self._item(node, key, value, why)
        if key in node.entries:
            if isinstance(value, Swap):
                return self._replace(node, key, value.key, value.value, why)
            return self._replace(node, key, key, value, why)
        return self._insert(node, key, value, why)

    def _above(self, line: int, why: str) -> Edit:
        """Write a comment above a line, with its indentation."""
        indent = edit.indent_of(self._lines[line])
        text = "" if self._json else "".join(f"{row}\n" for row in edit.comment(why, indent))
        return Edit(Mark(line, 0), Mark(line, 0), text)

    def _replace(self, node: Node, key: str, new_key: str, value: Any, why: str) -> list[Edit]:
        key_node, old = node.entries[key]
        above = self._above(key_node.start.line, why)
        if isinstance(value, list) and old.kind == "list" and not old.flow and new_key == key:
            return [above, *self._list(old, value)]
        name = self._scalar(new_key)
        if node.flow:
            return [above, Edit(key_node.start, old.end, f"{name}: {self._flow(value)}")]
        if old.flow and old.style not in ("|", ">") and not old.null:
            if not isinstance(value, dict) and new_key == key:
                return [above, Edit(old.start, old.end, self._like(old, value))]
            if old.kind == "map" and isinstance(value, dict):
                return [above, Edit(key_node.start, old.end, f"{name}: {self._flow(value)}")]
            if old.kind == "text" and isinstance(value, str) and "\n" not in value:
                return [above, Edit(key_node.start, old.end, f"{name}: {self._flow(value)}")]
        column = key_node.start.column
        rows = edit.entry(new_key, value, column)
        end = Mark(edit.extent(old, key_node.start.line, self._lines), 0)
        return [above, Edit(key_node.start, end, "\n".join(rows)[column:] + "\n")]

    def _like(self, old: Node, value: Any) -> str:
        """Write a scalar in the quotes of the one it replaces."""
        if isinstance(value, str) and old.style == "'" and "'" not in value and "\n" not in value:
            return f"'{value}'"
        if isinstance(value, str) and old.style == '"':
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        return self._flow(value)

    def _insert(self, node: Node, key: str, value: Any, why: str) -> list[Edit]:
        if node.flow:
            end = Mark(node.end.line, node.end.column - 1)
            comma = ", " if node.entries else ""
            text = f"{comma}{self._scalar(key)}: {self._flow(value)}"
            return [self._above(node.start.line, why), Edit(end, end, text)]
        column = min(entry.start.column for entry, _ in node.entries.values() if entry.start >= node.start)
        at = Mark(edit.extent(node, node.start.line, self._lines), 0)
        rows = [*edit.comment(why, column), *edit.entry(key, value, column)]
        missing = "\n" if at.line >= len(self._lines) and self._lines and not self._lines[-1].endswith("\n") else ""
        return [Edit(at, at, missing + "".join(f"{row}\n" for row in rows))]

    def _item(self, node: Node, number: int, value: Any, why: str) -> list[Edit]:
        old = node.items[number]
        above = self._above(old.start.line, why)
        if old.style in ("|", ">") and isinstance(value, str):
            dash = edit.indent_of(self._lines[old.start.line])
            head = "|" if value.endswith("\n") else "|-"
            end = Mark(edit.extent(old, old.start.line, self._lines), 0)
            return [above, Edit(old.start, end, "\n".join([head, *edit.literal(value, dash + 2)]) + "\n")]
        return [above, Edit(old.start, old.end, self._like(old, value))]

    def _list(self, old: Node, value: list[Any]) -> list[Edit]:
        """Replace the items that differ, between those that are the same at both ends."""
        ours, theirs = [plain(item) for item in old.items], [_texts(item) for item in value]
        first = 0
        while first < min(len(ours), len(theirs)) and ours[first] == theirs[first]:
            first += 1
        last = 0
        while last < min(len(ours), len(theirs)) - first and ours[-1 - last] == theirs[-1 - last]:
            last += 1
        column = edit.indent_of(self._lines[old.items[0].start.line])
        rows = "".join(f"{row}\n" for row in edit.block(value[first : len(value) - last], column))
        if first < len(ours):
            start = Mark(old.items[first].start.line, 0)
        else:
            start = Mark(edit.extent(old, old.start.line, self._lines), 0)
        end = start
        if first < len(ours) - last:
            item = old.items[len(ours) - last - 1]
            end = Mark(edit.extent(item, item.start.line, self._lines), 0)
        return [Edit(start, end, rows)]

    def _delete(self, path: tuple[str | int, ...], why: str) -> list[Edit]:
        node, nodes = self._root, []
        for step in path[:-1]:
            nodes.append(node)
            below = node.items[step] if isinstance(step, int) else node.get(step)
            if below is None:
                raise KeyError(step)
            node = below
        key = path[-1]
        if not isinstance(key, str):
            raise ValueError("an item of a list")
        if len(node.entries) == 1 and len(path) > 1:
            return self._delete(path[:-1], why)
        key_node, old = node.entries[key]
        if not node.flow:
            start = Mark(key_node.start.line, 0)
            if self._lines[start.line][: key_node.start.column].strip():
                raise ValueError("it begins an item of a list")
            end = Mark(edit.extent(old, key_node.start.line, self._lines), 0)
            rows = edit.comment(why, key_node.start.column)
            return [Edit(start, end, "".join(f"{row}\n" for row in rows))]
        order = list(node.entries)
        number = order.index(key)
        above = self._above(key_node.start.line, why)
        if number + 1 < len(order):
            return [above, Edit(key_node.start, node.entries[order[number + 1]][0].start, "")]
        return [above, Edit(node.entries[order[number - 1]][1].end, old.end, "")]


def patch(finding: Finding) -> str:
    """Return the repair as YAML to merge into the object; "" if there is none."""
    blocks: list[str] = []
    for change in finding.changes:
        comment = edit.comment(change.why, 0)
        rows = edit.block(_nested(change.place, change.value), 0)
        blocks += [*comment, *rows]
    return "\n".join(blocks)


def _nested(place: Place, value: Any) -> dict[str, Any]:
    """Return a change as a mapping from the object's root."""
    if value is DELETE:
        value = None
    here: Place | None = place
    if isinstance(value, Swap) and place.parent is not None:
        old = place.path[-1]
        value = {str(old): None, value.key: value.value}
        here = place.parent
    while here is not None and here.path:
        key = here.path[-1]
        if isinstance(key, int):
            name = here.get("name").text
            siblings = here.parent.value if here.parent is not None else []
            if isinstance(value, dict) and name:
                value = [{"name": name, **value}]
            elif isinstance(value, dict):
                value = [value]
            else:
                value = [value if number == key else item for number, item in enumerate(siblings)]
        else:
            value = {key: value}
        here = here.parent
    assert isinstance(value, dict)
    return value
