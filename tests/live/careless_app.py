"""The service with a view whose threads and greenlets raise."""

from __future__ import annotations

import threading
import warnings

import gevent

from app import create_app
from settings import load

app = create_app(load())


def fail(where: str) -> None:
    raise ValueError(f"told to fail in {where}")


@app.get("/fail")
def everywhere() -> str:
    gevent.spawn(fail, "a greenlet").join()
    thread = threading.Thread(target=fail, args=("a thread",))
    thread.start()
    thread.join()
    warnings.warn("told to warn", stacklevel=1)
    return "done"
