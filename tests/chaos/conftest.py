"""The fleet that most tests share, and what each test has counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.reader import BOOK

WRITE_TIMEOUT = 1.5  # seconds; the silent clients of one test are given up that soon


@pytest.fixture(scope="package")
def fleet() -> Iterator[Fleet]:
    """Two instances of two workers for all tests that leave them as they were."""
    with Fleet(2, workers=2, SSE_WRITE_TIMEOUT=WRITE_TIMEOUT) as fleet:
        yield fleet


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def book(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test reckons goes with its report, so that the end of the run has it from whichever process it ran in."""
    before = len(BOOK)
    yield
    request.node.user_properties += [("chaos", list(entry)) for entry in BOOK[before:]]
