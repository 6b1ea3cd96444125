"""A place in an object: a field, or where it would be.

A field is written as in ``Deployment/shop spec.template.spec.containers[web].livenessProbe``: a list item by its name
or number (from 0); a key with other characters than letters, digits, - and _ in brackets and quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .tree import Node, plain
from .units import seconds

_SIMPLE = re.compile(r"[A-Za-z0-9_-]+")
_TRUE = frozenset({"true", "yes", "on", "1"})


@dataclass(slots=True, eq=False)
class Object:
    """One Kubernetes object and its source."""

    root: Node
    file: str
    document: int  # from 1, within the file
    trail: tuple[str | int, ...] = ()  # the object's own place within its document: ("items", 2) in a List
    kind: str = field(init=False)
    name: str = field(init=False)
    namespace: str = field(init=False)
    group: str = field(init=False)

    def __post_init__(self) -> None:
        here = self.at()
        self.kind = here.get("kind").text or ""
        metadata = here.get("metadata")
        self.name = metadata.get("name").text or metadata.get("generateName").text or "unnamed"
        self.namespace = metadata.get("namespace").text or ""
        version = here.get("apiVersion").text or ""
        self.group = version.rpartition("/")[0]

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"

    def at(self, *keys: str | int) -> Place:
        return Place(self, self.root, (), "", self.root.start.line + 1).get(*keys)

    def annotation(self, key: str) -> Place:
        return self.at("metadata", "annotations", key)


class Place:
    """A field of an object. A missing field has a name, too, and the line of its nearest parent."""

    __slots__ = ("object", "node", "path", "field", "line", "parent")

    def __init__(
        self,
        object: Object,
        node: Node | None,
        path: tuple[str | int, ...],
        field: str,
        line: int,
        parent: Place | None = None,
    ) -> None:
        self.object = object
        self.node = node
        self.path = path
        self.field = field
        self.line = line
        self.parent = parent

    def get(self, *keys: str | int) -> Place:
        here = self
        for key in keys:
            here = here._step(key)
        return here

    def _step(self, key: str | int) -> Place:
        node: Node | None = None
        line = self.line
        if isinstance(key, int):
            if self.node is not None and self.node.kind == "list" and key < len(self.node.items):
                node = self.node.items[key]
                line = node.start.line + 1
            name = node.get("name") if node is not None else None
            field = f"{self.field}[{name.text if name is not None and name.kind == 'text' and name.text else key}]"
        else:
            entry = self.node.entries.get(key) if self.node is not None else None
            if entry is not None:
                node = entry[1]
                line = entry[0].start.line + 1
            if _SIMPLE.fullmatch(key):
                field = f"{self.field}.{key}" if self.field else key
            else:
                field = f"{self.field}['{key}']"
        return Place(self.object, node, (*self.path, key), field, line, self)

    def __bool__(self) -> bool:
        """Return True if there is a value; ``null`` is none."""
        return self.node is not None and not self.node.null

    def __repr__(self) -> str:
        return f"<{self.object.id} {self.field}>"

    @property
    def text(self) -> str | None:
        """Return the scalar as written; None if there is none."""
        return self.node.text if self and self.node is not None and self.node.kind == "text" else None

    @property
    def number(self) -> float | None:
        try:
            return float(self.text) if self.text is not None else None
        except ValueError:
            return None

    def integer(self, default: int) -> int:
        number = self.number
        return int(number) if number is not None else default

    def seconds(self, unit: float = 1.0) -> float | None:
        return seconds(self.text, unit)

    @property
    def true(self) -> bool:
        return (self.text or "").strip().lower() in _TRUE

    @property
    def value(self) -> Any:
        """Return the value as dictionaries, lists and strings."""
        return plain(self.node)

    def items(self) -> Iterator[Place]:
        """Return the items of a list."""
        if self.node is not None and self.node.kind == "list":
            for number in range(len(self.node.items)):
                yield self._step(number)

    def keys(self) -> list[str]:
        return list(self.node.entries) if self.node is not None and self.node.kind == "map" else []

    def entries(self) -> Iterator[tuple[str, Place]]:
        for key in self.keys():
            yield key, self._step(key)

    def walk(self) -> Iterator[Place]:
        """Yield this place and everything below."""
        yield self
        if self.node is None:
            return
        for _, below in self.entries():
            yield from below.walk()
        for below in self.items():
            yield from below.walk()
