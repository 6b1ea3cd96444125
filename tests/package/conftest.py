"""The package, built and installed once a session."""

from __future__ import annotations

import pytest

from tests.support.package import Built, Installed, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel and the sdist."""
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh virtual environment with the wheel."""
    return Installed(tmp_path_factory.mktemp("venv"), built.wheel)
