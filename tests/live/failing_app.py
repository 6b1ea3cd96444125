"""The service with bugs in its worker's loops."""

from __future__ import annotations

from typing import Any

from app import create_app
from settings import load
from sse.extension import AppSSE
from sse.fanout.passes import Passes
from sse.fanout.upkeep import Upkeep
from sse.worker.head_memory import HeadMemory

_run = Passes.run
_rounds = iter(range(3))


def _fail(*_: Any) -> None:
    raise RuntimeError("a bug")


def _fail_first(self: Passes) -> None:
    if next(_rounds, None) is not None:
        _fail()
    _run(self)


for owner, name in ((HeadMemory, "forget"), (Upkeep, "sweep"), (AppSSE, "end_responses")):
    setattr(owner, name, _fail)
Passes.run = _fail_first  # type: ignore[method-assign]
app = create_app(load())
