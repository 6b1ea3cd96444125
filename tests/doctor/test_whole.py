"""Whole manifests, as people have them. Each file's first lines say what is found in it, and nothing else may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.manifests import seen

FOLDER = Path(__file__).with_name("whole")


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob("*.yaml"))])
def test_exactly_what_the_file_says_is_found(path: Path) -> None:
    text = path.read_text()
    first, *listed = text.partition("---\n")[0].splitlines()
    assert first in ("# Found here, and nothing else:", "# Nothing is found here.")
    found = {f"# {each.severity} {each.id} {each.object} {each.field}" for each in seen(text)}
    assert found == set(listed)
