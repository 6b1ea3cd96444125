"""Builds or installs what the benchmarks need, once, in a cache directory outside the source tree.

The cache is keyed by a digest of the inputs: a changed source is built again, an unchanged one never.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

BENCH = Path(__file__).resolve().parent


class Unavailable(Exception):
    """A program or package that a peer needs is missing; the message says which."""


def cache_dir() -> Path:
    """Return the directory for builds: BENCH_CACHE, else the user's cache directory."""
    chosen = os.environ.get("BENCH_CACHE")
    base = (
        Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "headwater-bench"
    )
    base.mkdir(parents=True, exist_ok=True)
    return base


def program(name: str, environment: str | None = None) -> str:
    """Return a program's path, from PATH or an environment variable; raises Unavailable."""
    if environment is not None:
        path = os.environ.get(environment)
        if not path:
            raise Unavailable(f"{environment} is not set")
        if not os.access(path, os.X_OK):
            raise Unavailable(f"{environment}={path} is not an executable file")
        return path
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return found


def _digest(paths: Iterable[Path], *words: str) -> str:
    state = hashlib.sha256()
    for path in sorted(paths):
        state.update(path.name.encode())
        state.update(path.read_bytes())
    for word in words:
        state.update(word.encode())
    return state.hexdigest()[:16]


def _run(arguments: list[str], what: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        arguments, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    if done.returncode != 0:
        raise Unavailable(f"{what} failed: {' '.join(done.stdout.split()[-40:])}")


def compile_c(name: str, sources: Iterable[Path], *, flags: Iterable[str] = ()) -> Path:
    """Compile C sources into one program, again if a header changes."""
    sources = list(sources)
    headers = [h for folder in {s.parent for s in sources} for h in folder.glob("*.h")]
    target = cache_dir() / f"{name}-{_digest([*sources, *headers], *flags)}"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        compiler = program("cc")
        _run(
            [compiler, "-O2", "-Wall", "-Wextra", *flags, "-o", str(partial), *map(str, sources), "-lm"],
            f"cc {name}",
        )
        partial.replace(target)
    return target


def loadgen() -> Path:
    """Build the load generator."""
    return compile_c("loadgen", (BENCH / "loadgen").glob("*.c"))


def ceiling() -> Path:
    """Build the program that measures how fast one core can send."""
    return compile_c("ceiling", [BENCH / "ceiling.c"])


def go_program(folder: Path) -> Path:
    """Build the Go package in `folder` (standard library only)."""
    compiler = program("go")
    target = cache_dir() / f"go-{folder.name}-{_digest(p for p in folder.iterdir() if p.is_file())}"
    if not target.exists():
        cache = str(cache_dir() / "go")
        env = {
            **os.environ,
            "GOCACHE": cache,
            "GOFLAGS": "-mod=mod",
            "GO111MODULE": "auto",
            "CGO_ENABLED": "0",
        }
        _run([compiler, "build", "-o", str(target), "."], "go build", cwd=folder, env=env)
    return target


def python_venv(name: str, requirements: Path) -> Path:
    """Make a virtual environment with pinned packages; return its Python."""
    folder = cache_dir() / f"venv-{name}-{_digest([requirements], sys.version)}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], "python -m venv")
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        _run([*install, str(requirements)], f"pip install -r {requirements.name}")
        (folder / "complete").touch()
    return python


def npm_folder(source: Path) -> Path:
    """Copy `source` (package.json and scripts) and install its packages."""
    npm = program("npm")
    program("node")
    files = [p for p in source.iterdir() if p.suffix in {".json", ".mjs", ".js"}]
    folder = cache_dir() / f"npm-{source.name}-{_digest(files)}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in files:
            shutil.copy(path, folder)
        _run(
            [npm, "install", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts"],
            "npm install",
            cwd=folder,
        )
        (folder / "complete").touch()
    return folder
