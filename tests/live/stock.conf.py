"""gunicorn with one of its own worker classes, as an app's author would set it up: ``STOCK_WORKER``, gevent, gthread or
sync. ``STOCK_HOOKS`` names the module of our hook; without it there is none."""

import os
from importlib import import_module

if hooks := os.environ.get("STOCK_HOOKS"):
    post_worker_init = import_module(hooks).post_worker_init

bind = [f"127.0.0.1:{os.environ['PORT']}", f"127.0.0.1:{os.environ['HEALTH_PORT']}"]
worker_class = os.environ["STOCK_WORKER"]
threads = 4 if worker_class == "gthread" else 1
keepalive = 5
graceful_timeout = 2
control_socket_disable = True
