"""The last good settings file, in shared memory: complete, or not at all."""

from __future__ import annotations

import mmap
import os

import pytest

from sse.settings import last_good
from sse.settings.file import MAX_FILE_BYTES


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_good, "_memory", None)


def test_nothing_is_kept_before_the_memory_is_shared() -> None:
    last_good.keep(b"SSE_HEARTBEAT=5\n")
    assert last_good.last() is None


def test_a_parent_finds_the_newest_content_that_a_child_kept() -> None:
    last_good.share()
    assert last_good.last() is None
    for content in (b"x" * MAX_FILE_BYTES, b"SSE_HEARTBEAT=5\n"):
        if (pid := os.fork()) == 0:
            last_good.keep(content)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        last_good.share()  # a reload shares again, and must get the same memory
        assert last_good.last() == content


def test_a_mix_of_two_contents_is_rejected() -> None:
    last_good.share()
    last_good.keep(b"SSE_HEARTBEAT=5\n")
    memory = last_good._memory
    assert isinstance(memory, mmap.mmap)
    memory[last_good._HEAD.size + 3] ^= 1
    assert last_good.last() is None
