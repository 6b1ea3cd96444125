"""The fleet that most tests share, and each test's counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.reader import BOOK

WRITE_TIMEOUT = 1.5  # seconds; closes the silent clients of one test soon
RUN_GRACE = 4.0  # seconds; an instance waits so long only if it has runs


@pytest.fixture(scope="package")
def fleet() -> Iterator[Fleet]:
    """Two instances with two workers each, for tests that leave them as they were. They serve our app, and runs."""
    with Fleet(
        2, workers=2, app="tests.chaos.runs_app:app", SSE_WRITE_TIMEOUT=WRITE_TIMEOUT, SSE_RUN_GRACE=RUN_GRACE
    ) as fleet:
        yield fleet


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def book(request: pytest.FixtureRequest) -> Iterator[None]:
    """Attach a test's counts to its report, so that the end of the run has them from every process."""
    before = len(BOOK)
    yield
    request.node.user_properties += [("chaos", list(entry)) for entry in BOOK[before:]]
