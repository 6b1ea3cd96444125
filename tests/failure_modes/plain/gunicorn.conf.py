"""gunicorn for the plain app, as it is usually configured for streams: gevent, and the rest as it comes."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = "gevent"
workers = 1
worker_connections = int(os.environ.get("POOL", "100"))
# As cloud load balancers ask for (longer than their 60 s), so that they do not answer 502.
keepalive = int(os.environ.get("KEEPALIVE", "75"))
# gunicorn's default; the tests shorten it together with the grace period.
graceful_timeout = int(os.environ.get("GRACEFUL_TIMEOUT", "30"))
control_socket_disable = True
