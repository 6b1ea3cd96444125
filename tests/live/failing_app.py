"""The service with bugs in what its worker does over and over."""

from __future__ import annotations

from typing import Any

from app import create_app
from settings import load
from sse.extension import SSE
from sse.fanout import Fanout
from sse.fanout.upkeep import Upkeep
from sse.worker.head_memory import HeadMemory

_run_passes = Fanout.run_passes
_rounds = iter(range(3))


def _fail(*_: Any) -> None:
    raise RuntimeError("a bug")


def _fail_first(self: Fanout) -> None:
    if next(_rounds, None) is not None:
        _fail()
    _run_passes(self)


for owner, name in ((HeadMemory, "forget"), (Upkeep, "sweep"), (SSE, "end_responses")):
    setattr(owner, name, _fail)
Fanout.run_passes = _fail_first  # type: ignore[method-assign]
app = create_app(load())
