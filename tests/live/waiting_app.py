"""Headwater with routes that stand for what waits: all threads of the pool, and a console whose report fails."""

from __future__ import annotations

from typing import Any

from gevent import get_hub
from gevent.monkey import get_original

from app import create_app
from settings import load

app = create_app(load())
_sse = app.extensions["sse"]
_report = _sse.report_more
_fails = False


def _more() -> dict[str, Any]:
    if _fails:
        raise ZeroDivisionError("told to fail")
    return dict(_report())


_sse.report_more = _more


@app.post("/test/report/<state>")
def report(state: str) -> str:
    """From now on the console's report fails, or not."""
    global _fails
    _fails = state == "fails"
    return state


@app.post("/test/full-pool/<float:seconds>")
def full_pool(seconds: float) -> str:
    """Every thread of the worker's pool waits for something that does not come, and a queue is behind them."""
    pool = get_hub().threadpool
    for _ in range(pool.maxsize * 2):
        pool.spawn(get_original("time", "sleep"), seconds)
    return "full"
