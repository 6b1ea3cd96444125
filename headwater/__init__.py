"""Headwater: Server-Sent Events for Flask apps, and probes for them in Kubernetes.

    from headwater import SSE, Health

    sse = SSE(app)
    Health(app)
    sse.publish("orders", '{"item":1}', event="created")

All of :mod:`headwater.sse`'s names are here, too. They are looked up on first use: the kubelet starts
``headwater.health.probe`` for each probe, and gunicorn's master must not load what gevent is to patch in the workers.

In a checkout ``headwater/sse`` and ``headwater/health`` are links to the folders beside this one, which the service
there imports as ``sse`` and ``health``. One process uses either these names or those.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

TYPE_CHECKING = False  # instead of typing.TYPE_CHECKING: importing typing costs 5 ms of CPU

if TYPE_CHECKING:
    from .health import Health as Health
    from .sse import *  # noqa: F403

    __version__: str


def _refuse_a_second_copy() -> None:
    """Threat: one process with both names has two of everything, and an app's streams are unknown to the worker."""
    other = getattr(sys.modules.get("sse"), "__file__", None)
    ours = os.path.join(os.path.dirname(__file__), "sse", "__init__.py")
    if other is not None and os.path.realpath(other) == os.path.realpath(ours):
        raise ImportError(
            "this process has Headwater already, as `sse` (by the checkout's gunicorn.conf.py?): run an app that"
            " imports headwater by `headwater serve --app …` or `gunicorn -c python:headwater.gunicorn_conf …`"
        )


_refuse_a_second_copy()


def __getattr__(name: str) -> object:
    if name == "Health":
        from .health.apps import Health

        return Health
    if name == "__version__":
        from .sse.version import VERSION

        return VERSION
    sse = import_module(".sse", __name__)  # `from . import` would ask here first
    if name == "__all__":
        return ["Health", *sse.__all__]
    if name in sse.__all__:
        return getattr(sse, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
