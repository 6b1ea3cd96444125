"""The last good settings file, in memory that workers share: whole, or nothing."""

from __future__ import annotations

import mmap
import os

import pytest

from sse.settings import last_good as kept
from sse.settings.file import MAX_FILE_BYTES


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_memory", None)


def test_where_nothing_is_shared_nothing_is_kept() -> None:
    kept.keep(b"SSE_HEARTBEAT=5\n")
    assert kept.last() is None


def test_what_a_child_keeps_its_parent_finds_and_the_newest_counts() -> None:
    kept.share()
    assert kept.last() is None
    for content in (b"x" * MAX_FILE_BYTES, b"SSE_HEARTBEAT=5\n"):
        if (pid := os.fork()) == 0:
            kept.keep(content)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        kept.share()  # again, on a reload: it is the same memory
        assert kept.last() == content


def test_a_content_that_two_have_written_at_once_is_not_believed() -> None:
    kept.share()
    kept.keep(b"SSE_HEARTBEAT=5\n")
    memory = kept._memory
    assert isinstance(memory, mmap.mmap)
    memory[kept._HEAD.size + 3] ^= 1
    assert kept.last() is None
