"""`make sbom`: the bill of materials is valid by its schema, and lists exactly what the image installs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from sse.version import VERSION
from tests.hardening.test_dependencies import entries
from tests.support.programs import require_program
from tests.support.server import ROOT

TOOLS = ROOT / ".venv" / "audit" / "bin"

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bill of materials. CI installs the tools for it; elsewhere the tests are skipped without them."""
    if not (TOOLS / "cyclonedx-py").exists() and os.environ.get("CI", "").lower() != "true":
        pytest.skip("needs the tools of `make sbom`: run it once")
    path = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    make = require_program("make", "make")
    done = subprocess.run([make, "sbom", f"SBOM={path}"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def _loaded(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_it_is_valid_by_the_schema_of_cyclonedx(made: Path, tmp_path: Path) -> None:
    assert subprocess.run([TOOLS / "python", "-c", VALIDATE, made], timeout=60, check=False).returncode == 0
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(_loaded(made) | {"components": [{"name": "no type"}]}))
    done = subprocess.run([TOOLS / "python", "-c", VALIDATE, broken], timeout=60, check=False, capture_output=True)
    assert done.returncode == 1, "the validator finds faults"


def test_it_describes_this_version(made: Path) -> None:
    component = _loaded(made)["metadata"]["component"]
    assert (component["name"], component["version"], component["type"]) == ("headwater", VERSION, "application")


def test_it_lists_what_the_image_installs_with_hashes(made: Path) -> None:
    listed = {
        canonicalize_name(one["name"]): (
            one["version"],
            {hash_["content"] for reference in one["externalReferences"] for hash_ in reference.get("hashes", [])},
        )
        for one in _loaded(made)["components"]
    }
    wanted = {
        canonicalize_name(requirement.name): (
            str(requirement.specifier).removeprefix("=="),
            {text.removeprefix("sha256:") for text in hashes},
        )
        for requirement, hashes in entries("requirements.txt")
    }
    assert len(wanted) > 20 and listed == wanted


def test_the_image_installs_that_file_unless_told_otherwise() -> None:
    assert "ARG REQUIREMENTS=requirements.txt\n" in (ROOT / "Dockerfile").read_text()
