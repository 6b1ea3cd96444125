"""A worker's inside over each engine, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.sse.worker_parts import Parts


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh log of each engine that needs no server."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/h.db"


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes what it was given at the end of the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def parts(url: str, closing: ExitStack) -> Callable[..., Parts]:
    """``parts(**settings)``: a started worker's inside, on the test's log."""
    return lambda **settings: closing.enter_context(Parts(url, **settings))
