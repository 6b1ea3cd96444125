"""Headwater with routes that occupy every thread of the pool, or make the console's report fail."""

from __future__ import annotations

from typing import Any

from gevent import get_hub
from gevent.monkey import get_original

from app import create_app
from settings import load

app = create_app(load())
_sse = app.extensions["sse"]
_report = app.extensions["health"].report
_fails = False


def _more() -> dict[str, Any]:
    if _fails:
        raise ZeroDivisionError("told to fail")
    return dict(_report())


_sse.report_more(_more)


@app.post("/test/report/<state>")
def report(state: str) -> str:
    """Make the console's report fail from now on, or work again."""
    global _fails
    _fails = state == "fails"
    return state


@app.post("/test/full-pool/<float:seconds>")
def full_pool(seconds: float) -> str:
    """Keep every thread of the worker's pool waiting, with a queue behind them."""
    pool = get_hub().threadpool
    for _ in range(pool.maxsize * 2):
        pool.spawn(get_original("time", "sleep"), seconds)
    return "full"
