"""gunicorn's configuration: ``gunicorn -c python:headwater.gunicorn_conf myapp:app``.

For an app that has ``SSE(app)`` and ``Health(app)``. It listens on HOST:PORT, and on HEALTH_PORT for the probes.
"""

import sys
from typing import Any

from .health import hooks
from .sse.serve.gunicorn_conf import configuration
from .sse.serve.load import load

_configuration = configuration(load(), hooks)
_on_starting, _on_reload = _configuration["on_starting"], _configuration["on_reload"]


def _forget() -> None:
    """Make gunicorn read the settings again on the next reload (SIGHUP): it executes a file each time, but imports a
    module only once."""
    sys.modules.pop(__name__, None)


def on_starting(server: Any) -> None:
    _forget()
    _on_starting(server)


def on_reload(server: Any) -> None:
    _forget()
    _on_reload(server)


globals().update(_configuration | {"on_starting": on_starting, "on_reload": on_reload})
