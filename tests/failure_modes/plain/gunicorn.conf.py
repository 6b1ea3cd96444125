"""gunicorn for the plain app, as usually configured for streams: gevent, and the defaults."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "gevent"
workers = 1
worker_connections = int(os.environ.get("POOL", "100"))
# Above cloud load balancers' 60 s, so that they do not answer 502.
keepalive = int(os.environ.get("KEEPALIVE", "75"))
# gunicorn's default; the tests shorten it together with the grace period.
graceful_timeout = int(os.environ.get("GRACEFUL_TIMEOUT", "30"))
control_socket_disable = True
