"""gunicorn with one of its own worker classes, as an app's author would set it up: ``STOCK_WORKER``, gevent or
gthread."""

import os
from importlib import import_module

post_worker_init = import_module(os.environ.get("STOCK_HOOKS", "sse.gunicorn")).post_worker_init

bind = [f"127.0.0.1:{os.environ['PORT']}", f"127.0.0.1:{os.environ['HEALTH_PORT']}"]
worker_class = os.environ["STOCK_WORKER"]
threads = 4
keepalive = 5
graceful_timeout = 2
control_socket_disable = True
