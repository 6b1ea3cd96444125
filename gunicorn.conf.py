"""gunicorn's configuration: ``gunicorn -c gunicorn.conf.py wsgi:app``.

gunicorn executes this file again on every reload (SIGHUP), so it must not hold state.
"""

import os

from health import hooks as health_hooks
from settings import load
from sse import gunicorn as sse_hooks
from sse.observe import logging as logs

settings = load()

# Streams, publishing and the console; and health, on a separate listener.
bind = [settings.bind, settings.health_bind]
worker_class = "sse.worker.SSEWorker"
workers = settings.web_concurrency
# Connections per listener that are being read or answered; a stream leaves this pool at takeover.
worker_connections = settings.worker_connections
# The accept queue: a thousand clients that reconnect at once must not be refused (bounded by net.core.somaxconn).
backlog = 4096

# Watchdog: gunicorn replaces a worker whose event loop is stuck. Streams have their own time-outs.
timeout = 30
# Longer than the drain, so that gunicorn never cuts a stream that the drain is about to end.
graceful_timeout = settings.graceful_timeout
# Never recycle workers by request count: such a worker stops accepting until all its streams have ended.
max_requests = 0

# Header limits in addition to SSE_MAX_HEADER_BYTES.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = settings.sse_max_header_bytes
# Believe a forwarded scheme only from the configured proxies.
forwarded_allow_ips = ",".join(str(network) for network in settings.sse_trusted_proxies) or "127.0.0.1"

# The watchdog's heartbeat file must not be on a disk that can stall.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
# gunicorn would create it under the home directory, which a read-only container does not have.
control_socket_disable = True
logconfig_dict = logs.config(settings)


def on_starting(server):
    logs.capture()
    health_hooks.on_starting(server)


def on_reload(server):
    health_hooks.on_reload(server)


def nworkers_changed(server, new_value, old_value):
    health_hooks.nworkers_changed(server, new_value, old_value)


def when_ready(server):
    sse_hooks.when_ready(server)


def pre_fork(server, worker):
    health_hooks.pre_fork(server, worker)


def post_fork(server, worker):
    health_hooks.post_fork(server, worker)


def post_worker_init(worker):
    sse_hooks.post_worker_init(worker)
    health_hooks.post_worker_init(worker)
    # After a reload the old workers keep accepting until the new ones do.
    worker.replaced = health_hooks.replaced


def worker_exit(server, worker):
    health_hooks.worker_exit(server, worker)


def child_exit(server, worker):
    health_hooks.child_exit(server, worker)


def on_exit(server):
    health_hooks.on_exit(server)
