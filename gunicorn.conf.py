"""gunicorn's configuration: ``gunicorn -c gunicorn.conf.py wsgi:app``. The values are in sse/serve/gunicorn_conf.py.

gunicorn executes this file again on every reload (SIGHUP), so it must not hold state.
"""

from health import hooks
from settings import load
from sse.serve.gunicorn_conf import configuration

globals().update(configuration(load(), hooks))
