"""Files, folders and standard input as Kubernetes objects."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CannotRun
from .place import Object
from .tree import Node, parse

#: Bytes of one input. `kubectl get` of a thousand workloads is 10 MB; anything larger is something else by mistake.
MAX_BYTES = 32 * 2**20

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass
class Loaded:
    """What was read."""

    objects: list[Object] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)  # by file: for --fix


def load(names: Iterable[str], recursive: bool = False) -> Loaded:
    """Read files, folders (like kubectl, without subfolders unless recursive) and ``-``. Raises CannotRun."""
    loaded = Loaded()
    for name in names:
        if name != "-" and Path(name).is_dir():
            _read_folder(Path(name), recursive, loaded)
        else:
            text = _read(name)
            if not take("stdin" if name == "-" else name, text, loaded):
                raise CannotRun(f"{_called(name)}: no Kubernetes object in it (none has a `kind`)")
    if not loaded.objects:
        raise CannotRun(f"{', '.join(names)}: no Kubernetes object in it (none has a `kind`)")
    return loaded


def _called(name: str) -> str:
    return "standard input" if name == "-" else name


def _read_folder(folder: Path, recursive: bool, loaded: Loaded) -> None:
    pattern = "**/*" if recursive else "*"
    files = sorted(path for path in folder.glob(pattern) if path.suffix in _SUFFIXES and path.is_file())
    if not files:
        raise CannotRun(
            f"{folder}: no .yaml, .yml or .json file in it" + ("" if recursive else " (--recursive looks below)")
        )
    for path in files:
        if not take(str(path), _read(str(path)), loaded):
            loaded.notes.append(f"{path}: passed over, no Kubernetes object in it")


def _read(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CannotRun(f"{name}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise CannotRun(
            f"{_called(name)}: more than {MAX_BYTES >> 20} MiB; give it the workloads, Services and routes only"
        )
    if b"\0" in data:
        raise CannotRun(f"{_called(name)}: binary, not YAML")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CannotRun(f"{_called(name)}: not UTF-8 (byte {error.start})") from None


def take(name: str, text: str, loaded: Loaded) -> bool:
    """Add the objects of a text; False if there are none."""
    before = len(loaded.objects)
    loaded.texts[name] = text
    for number, document in enumerate(parse(text, name), 1):
        for node, trail in _unpacked(document, ()):
            kind = node.get("kind") if node.kind == "map" else None
            if kind is not None and kind.kind == "text" and kind.text:
                loaded.objects.append(Object(node, name, number, trail))
    return len(loaded.objects) > before


def _unpacked(node: Node, trail: tuple[str | int, ...]) -> Iterator[tuple[Node, tuple[str | int, ...]]]:
    """Return a List's items, else the document itself."""
    kind = node.get("kind") if node.kind == "map" else None
    items = node.get("items") if node.kind == "map" else None
    if kind is not None and kind.text.endswith("List") and items is not None and items.kind == "list":
        for number, item in enumerate(items.items):
            yield from _unpacked(item, (*trail, "items", number))
    else:
        yield node, trail
