"""Headwater with faults in its worker, each active while its file exists in the directory FAULTS."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from sse.events.names import CANARY_CHANNEL
from sse.fanout.passes import Passes
from sse.streams.hub import Hub
from sse.streams.tailer import Tailer
from tests.failure_modes import blocking
from wsgi import app

__all__ = ["app"]

_FAULTS = Path(os.environ.get("FAULTS", "/nonexistent"))
_pass, _after_gap, _inject = Passes._pass, Tailer._after_gap, Hub.inject


def _on(fault: str) -> bool:
    return (_FAULTS / fault).exists()


def _stuck_pass(self: Passes, group: Any) -> None:
    """Stop the fan-out in the middle of a pass."""
    while _on("hub-stuck"):
        time.sleep(0.05)
    _pass(self, group)


def _dying_tailer(self: Tailer, batch: Any) -> Any:
    """End the thread that follows the log; SystemExit is the one exception that threads do not report."""
    if _on("tailer-dead"):
        raise SystemExit
    return _after_gap(self, batch)


def _mute_canary(self: Hub, channel: str, wire: bytes) -> None:
    """Lose heartbeats between the hub and their subscriber."""
    if not (channel == CANARY_CHANNEL and _on("canary-stale")):
        _inject(self, channel, wire)


Passes._pass = _stuck_pass  # type: ignore[method-assign]
Tailer._after_gap = _dying_tailer  # type: ignore[method-assign]
Hub.inject = _mute_canary  # type: ignore[method-assign]


@app.get("/report/<float:seconds>")
def report(seconds: float) -> str:
    """Answer a user's request with work that blocks the event loop."""
    blocking.work(seconds)
    return "done\n"
