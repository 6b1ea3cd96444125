"""Fixtures of the command's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from tests.support.scripted_server import ScriptedServer
from tests.support.server import Server

_numbers = count()


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    """A service, shared by a module: use the channel of your own that ``channel`` is."""
    with Server(SSE_RETRY=50, SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as running:
        yield running


@pytest.fixture
def channel() -> str:
    """A channel that no other test has."""
    return f"c{next(_numbers)}"


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server that answers as the test says."""
    with closing(ScriptedServer()) as server:
        yield server


@pytest.fixture
def log(tmp_path: Path) -> str:
    """SSE_LOG: a file that is not there yet."""
    return f"sqlite:///{tmp_path}/h.db"
