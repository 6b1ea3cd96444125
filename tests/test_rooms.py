"""Imports run one way through the rooms of ``sse/``; ``health`` and ``sse`` are strangers; and who may name a framework."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: A room imports itself and the rooms in the lines above its own.
FLOORS = (
    {"events", "runtime", "version"},
    {"log", "auth"},
    {"settings"},
    {"streams"},
    {"fanout", "observe", "runs"},
    {"web"},
    {"registry"},
    {"extension"},
    {"apps"},
    {"gunicorn", "testing"},
    {"worker", "serve"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

#: Which rooms may name a framework; all others stay free of it.
FRAMEWORKS = {
    "gunicorn": {"worker", "gunicorn"},
    "gevent": {"fanout", "worker", "runtime"},
    "flask": {"web", "extension", "apps", "testing", "observe", "serve"},
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, absolute, also in functions and under TYPE_CHECKING."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The room of a module of ``sse``; the package itself counts as ``apps``, whose names it gives out."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else "apps"


@pytest.mark.parametrize("path", modules("sse"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imports(path):
        top = module.split(".")[0]
        assert top != "health", f"sse knows nothing of health, but {path} imports {module}"
        assert own in FRAMEWORKS.get(top, {own}), f"{own} may not import {module}"
        if top == "sse":
            other = room(module)
            assert other == own or FLOOR[other] < FLOOR[own], f"{own} may not import {other} ({module})"


@pytest.mark.parametrize("path", modules("health"), ids=lambda path: str(path.relative_to(ROOT)))
def test_health_knows_nothing_of_sse(path: Path) -> None:
    assert not [module for module in imports(path) if module.split(".")[0] == "sse"]


@pytest.mark.parametrize("path", [*modules("sse"), *modules("health"), *modules("headwater")], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_finds_its_parts_under_any_name(path: Path) -> None:
    """What is `sse` in a checkout is `headwater.sse` where the package is installed, so imports of it are relative."""
    absolute = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {alias.name for node in absolute if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in absolute if isinstance(node, ast.ImportFrom) and not node.level}
    assert not {name.split(".")[0] for name in named} & {"sse", "health", "headwater", "settings", "app", "wsgi"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    paths = [*modules("sse"), *modules("health")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    graph = {}
    for name, path in names.items():
        # What an import names is a module, or something in one.
        found = {module if module in names else module.rpartition(".")[0] for module in imports(path)}
        graph[name] = (found & names.keys()) - {name}
    # Whoever imports nobody that is left stands in no circle; what remains in the end does.
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert sorted(graph) == []


def test_few_modules_stand_outside_the_rooms() -> None:
    assert len(list((ROOT / "sse").glob("*.py"))) <= 8


def test_the_architecture_names_every_room_and_only_modules_that_exist() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `((?:sse|health)/\S+)` \|(.*)$", architecture, re.MULTILINE))
    assert {f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "sse").glob("*/__init__.py")} <= rows.keys()
    for place, text in rows.items():
        folder = ROOT / place if place.endswith("/") else ROOT
        assert (ROOT / place).exists(), place
        for name in re.findall(r"`([\w/]+\.py)`", text):
            assert (folder / name).exists(), f"{place}: {name}"


def test_no_file_is_longer_than_400_lines() -> None:
    folders = ("sse", "health", "headwater/command", "bench", "examples", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
    assert len(files) > 500
    assert [str(path) for path in files if len(path.read_text().splitlines()) > 400] == []
