"""What is in the wheel and the sdist, and that it works where nothing of the checkout is."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from sse.version import VERSION
from tests.support.package import Built, Installed
from tests.support.server import ROOT

#: Everything that is meant to be installed, from the checkout's folders.
FILES = {
    f"headwater/{path.relative_to(ROOT).as_posix().removeprefix('headwater/')}"
    for folder in ("headwater", "sse", "health")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


def names(built: Built) -> set[str]:
    return set(zipfile.ZipFile(built.wheel).namelist())


def metadata(built: Built) -> email.message.Message:
    text = zipfile.ZipFile(built.wheel).read(f"headwater-{VERSION}.dist-info/METADATA").decode()
    return email.message_from_string(text)


def test_the_wheel_has_one_package_with_every_file_of_it(built: Built) -> None:
    assert {name for name in names(built) if not name.startswith(f"headwater-{VERSION}.dist-info/")} == FILES
    assert {"headwater/sse/web/console/index.html", "headwater/sse/py.typed"} <= FILES


def test_the_sdist_has_the_sources_once_and_no_tests(built: Built) -> None:
    inside = {name.partition("/")[2] for name in tarfile.open(built.sdist).getnames()}
    assert {"sse/extension.py", "health/extension.py", "headwater/__init__.py", "setup.py", "LICENSE"} <= inside
    assert not {name for name in inside if name.startswith(("tests", "headwater/sse", "headwater/health", "bench"))}


def test_an_index_would_take_both_and_show_the_readme(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(built.wheel), str(built.sdist)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_the_readme_leads_nowhere_that_is_not_there(built: Built) -> None:
    text = str(metadata(built).get_payload())
    assert text.startswith("# Headwater") and "docs/kubernetes.md" in text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert [target for target in targets if not target.startswith("https://")] == []


def test_what_it_needs_is_what_the_service_is_pinned_to(built: Built) -> None:
    needed = [line for line in metadata(built).get_all("Requires-Dist", []) if "extra ==" not in line]
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    assert needed and {re.split(r"[<>=\[~ ]", line)[0].lower() for line in needed} <= {name.partition("[")[0] for name in pinned}


IMPORT_ALL = """
import importlib, importlib.util, pkgutil, headwater
for name in ("sse", "health", "settings", "app", "wsgi"):
    assert importlib.util.find_spec(name) is None, name
for found in pkgutil.walk_packages(headwater.__path__, "headwater."):
    if not found.name.endswith(("__main__", "gunicorn_conf", "wsgi")) or ".serve." in found.name:
        importlib.import_module(found.name)
import sys
assert not {name.split(".")[0] for name in sys.modules} & {"sse", "health", "settings", "app", "wsgi"}
from headwater import *
from headwater import __version__
assert SSE is headwater.sse.SSE and Health is headwater.health.Health
assert set(headwater.__all__) == {"Health", *headwater.sse.__all__} <= set(globals())
print(__version__)
"""


def test_everything_is_found_under_the_one_name_and_nothing_else_is_there(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("python", "-W", "error::ImportWarning", "-c", IMPORT_ALL, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, VERSION), done.stderr


@pytest.mark.parametrize("module", ["headwater.sse.settings", "headwater.health.doctor", "headwater.health.probe", "headwater"])
def test_what_runs_in_a_checkout_by_its_name_runs_under_the_packages(module: str, installed: Installed, tmp_path: Path) -> None:
    done = installed.run("python", "-m", module, "--help", cwd=tmp_path)
    assert done.returncode == 0 and re.search("SSE_HEARTBEAT|[Uu]sage", done.stdout), done.stderr


def test_a_type_checker_finds_its_types(installed: Installed, tmp_path: Path) -> None:
    code = "from headwater import SSE, Health, Message\nreveal_type(SSE().publish)\nHealth()\nMessage('')\n"
    (tmp_path / "shop.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", str(installed.bin / "python"), "--strict", "--cache-dir", "/dev/null", "shop.py"],
        capture_output=True, text=True, timeout=100, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and "def (channel: " in done.stdout, done.stdout + done.stderr


def test_the_sdist_installs_the_same(built: Built, installed: Installed, tmp_path: Path) -> None:
    other = Installed(tmp_path / "venv", built.sdist)

    def files(where: Installed) -> set[str]:
        return {str(path.relative_to(where.packages)) for path in where.packages.glob("headwater/**/*.[pjh]*")}

    assert files(other) == files(installed) and len(files(other)) > 100
    assert other.run("headwater", "--version", cwd=tmp_path).stdout == f"headwater {VERSION}\n"
