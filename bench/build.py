"""Builds or installs what the benchmarks need, once, in a cache directory outside the source tree.

The cache is keyed by a digest of the inputs: a changed source is built again, an unchanged one never.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

BENCH = Path(__file__).resolve().parent
BUILD_DEADLINE = 1800  # seconds; Centrifugo with all it needs takes four minutes on two busy cores
GO_HOME = "/usr/local/go/bin"  # where Go's own installation lies, on PATH or not


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
        if shutil.which(path) is None:
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
    """Run a command; raises Unavailable with the last words of its output if it fails or takes too long."""
    try:
        done = subprocess.run(
            arguments,
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_DEADLINE,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what} took more than {BUILD_DEADLINE} s") from None
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


class GoCompiler(NamedTuple):
    """A Go compiler, and its version: `1.26.1`."""

    path: str
    version: str


def newest_go(folders: Iterable[str]) -> GoCompiler:
    """Return the newest `go` in these folders; raises Unavailable."""
    found = []
    for folder in dict.fromkeys(folders):
        path = shutil.which("go", path=folder)
        said = subprocess.run([path, "env", "GOVERSION"], capture_output=True, text=True).stdout if path else ""
        if path and (version := re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", said)):
            found.append(([int(number or 0) for number in version.groups()], GoCompiler(path, version[0][2:])))
    if not found:
        raise Unavailable("go is not installed")
    return max(found)[1]


@functools.cache
def go() -> GoCompiler:
    """Return the newest Go: a distribution's is often years old, and may come first on PATH."""
    return newest_go([*os.environ.get("PATH", "").split(os.pathsep), GO_HOME])


def _go_environment(**more: str) -> dict[str, str]:
    flags = "-mod=readonly -buildvcs=false"
    return {**os.environ, "GOCACHE": str(cache_dir() / "go"), "GOFLAGS": flags, "CGO_ENABLED": "0", **more}


def go_program(folder: Path) -> Path:
    """Build the Go program in `folder`; go.sum there has the checksums of what it imports."""
    compiler = go()
    files = [path for path in folder.iterdir() if path.is_file()]
    target = cache_dir() / f"go-{folder.name}-{_digest(files, compiler.version)}"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}")
        _run([compiler.path, "build", "-o", str(partial), "."], "go build", cwd=folder, env=_go_environment())
        partial.replace(target)
    return target


def go_install(module: str, version: str) -> Path:
    """Install a Go program by its module and exact version, as `go install MODULE@VERSION` does."""
    compiler = go()
    folder = cache_dir() / f"go-install-{_digest([], module, version, compiler.version)}"
    if not (folder / "complete").exists():
        environment = _go_environment(GOBIN=str(folder), GOFLAGS="-buildvcs=false")
        _run([compiler.path, "install", f"{module}@{version}"], f"go install {module}", env=environment)
        (folder / "complete").touch()
    (program,) = (path for path in folder.iterdir() if path.name != "complete")
    return program


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
    files = [path for path in source.iterdir() if path.suffix in {".json", ".mjs"}]
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
