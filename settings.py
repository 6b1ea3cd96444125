"""``load()``: the service's settings from the environment and the settings file, for gunicorn.conf.py and wsgi.py."""

from sse.serve.load import load

__all__ = ["load"]
