"""YAML as a tree of nodes that know where they stand in the text.

Theory of operation. A finding needs the line of a value, and a repair the exact span that it replaces, so the doctor
works on the parser's events, not on plain dictionaries. Scalars stay text: whether ``60`` is a number depends on the
field; in an annotation it is none. Aliases share their node, so a "billion laughs" takes no memory; ``size`` counts
what it would expand to, and is limited.

The parser is ruamel.yaml's. With ``ruamel.yaml.clib`` installed it is libyaml's, several times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .errors import CannotRun

#: Values in one document, with aliases expanded. The largest manifests, CustomResourceDefinitions, have some 20,000.
MAX_VALUES = 500_000

#: Levels. Manifests have a dozen, schemas of custom resources thirty.
MAX_DEPTH = 100

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Mark(NamedTuple):
    """A position in the text; both count from 0."""

    line: int
    column: int


class Node:
    """A scalar, a list or a mapping."""

    __slots__ = ("kind", "start", "end", "text", "items", "entries", "plain", "style", "flow", "size", "merged")

    def __init__(self, kind: str, start: Mark, end: Mark) -> None:
        self.kind = kind  # "text", "list" or "map"
        self.start = start
        self.end = end
        self.text: str = ""
        self.items: list[Node] = []
        self.entries: dict[str, tuple[Node, Node]] = {}  # by key: the key's node and the value's
        self.plain = True  # a scalar without quotes, the only kind that can be null
        self.style: str | None = None  # a scalar's: None, ', ", | or >
        self.flow = False  # written as {…} or […]
        self.size = 1
        self.merged = False  # some entries come from `<<`, and are elsewhere

    @property
    def null(self) -> bool:
        return self.kind == "text" and self.plain and self.text in _NULLS

    def get(self, key: str) -> Node | None:
        found = self.entries.get(key)
        return found[1] if found else None


def parse(text: str, name: str) -> list[Node]:
    """Parse the documents of a YAML text; empty ones are left out.

    name: its name in errors. Raises CannotRun.
    """
    # Imported here: the other uses of the command (--url, --symptoms) need no YAML.
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError
    except ModuleNotFoundError:
        raise CannotRun(
            "manifests are read with ruamel.yaml, which is not installed (pip install ruamel.yaml)"
        ) from None

    try:
        return list(_Composer(YAML(typ="safe").parse(text), name).documents())
    except YAMLError as error:
        raise CannotRun(
            _explain(error, error.problem_mark if isinstance(error, MarkedYAMLError) else None, text, name)
        ) from None
    except _NotAKey as error:
        raise CannotRun(_explain(error, error.mark, text, name)) from None


class _NotAKey(Exception):
    """A mapping's key is a collection: legal YAML, but no manifest; usually a template."""

    def __init__(self, mark: Any) -> None:
        super().__init__("a key that is not text")
        self.mark = mark


def _explain(error: Exception, mark: Any, text: str, name: str) -> str:
    line = f", line {mark.line + 1}" if mark is not None else ""
    if "{{" in text:
        return f"{name}{line}: a template that was not rendered ({{{{ … }}}}); give what `helm template` prints"
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{name}{line}: not YAML: {problem}"


class _Composer:
    """Builds nodes from the parser's events, within limits."""

    def __init__(self, events: Any, name: str) -> None:
        self._events = iter(events)
        self._name = name
        self._anchors: dict[str, Node] = {}
        self._depth = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if type(event).__name__ == "DocumentStartEvent":
                self._anchors = {}
                self._depth = 0
                root = self._node(next(self._events))
                if not root.null:
                    yield root

    def _node(self, event: Any) -> Node:
        kind = type(event).__name__
        start = Mark(event.start_mark.line, event.start_mark.column)
        end = Mark(event.end_mark.line, event.end_mark.column)
        if kind == "AliasEvent":
            found = self._anchors.get(event.anchor)
            if found is None:
                raise CannotRun(f"{self._name}, line {start.line + 1}: not YAML: no anchor {event.anchor}")
            return found
        if kind == "ScalarEvent":
            node = Node("text", start, end)
            node.text = event.value
            node.style = event.style or None
            node.plain = not event.style and event.implicit[0]
            node.flow = True
        else:
            node = self._collection(event, kind, start)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _collection(self, event: Any, kind: str, start: Mark) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CannotRun(f"{self._name}, line {start.line + 1}: nested more than {MAX_DEPTH} levels deep")
        node = Node("list" if kind == "SequenceStartEvent" else "map", start, start)
        node.flow = bool(event.flow_style)
        for event in self._events:
            if type(event).__name__ in ("SequenceEndEvent", "MappingEndEvent"):
                node.end = Mark(event.end_mark.line, event.end_mark.column)
                break
            if node.kind == "list":
                item = self._node(event)
                node.items.append(item)
                node.size += item.size
            else:
                self._entry(node, event)
            if node.size > MAX_VALUES:
                raise CannotRun(
                    f"{self._name}, line {node.start.line + 1}: more than {MAX_VALUES:,} values in one document"
                    " (aliases that multiply?)"
                )
        self._depth -= 1
        return node

    def _entry(self, node: Node, event: Any) -> None:
        key = self._node(event)
        if key.kind != "text":
            raise _NotAKey(event.start_mark)
        value = self._node(next(self._events))
        node.size += value.size
        if key.text == "<<" and key.plain:
            node.merged = True
            for source in value.items if value.kind == "list" else [value]:
                for name, entry in source.entries.items():
                    node.entries.setdefault(name, entry)
        else:
            node.entries[key.text] = (key, value)


def plain(node: Node | None) -> Any:
    """Return the node as dictionaries, lists and strings; null is None."""
    if node is None or node.null:
        return None
    if node.kind == "text":
        return node.text
    if node.kind == "list":
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, (_, value) in node.entries.items()}
