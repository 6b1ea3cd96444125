"""gunicorn's configuration: ``gunicorn -c gunicorn.conf.py wsgi:app``.

gunicorn executes this file again on every reload (SIGHUP), so nothing is kept here.
"""

import os

from health import hooks as health_hooks
from settings import load
from sse import gunicorn as sse_hooks
from sse.observe import logging as logs

settings = load()

# Streams, publishing and the console; and, with connections of its own, health.
bind = [settings.bind, settings.health_bind]
worker_class = "sse.worker.SSEWorker"
workers = settings.web_concurrency
# Connections per listener that are being read or answered; a stream leaves this pool when it is taken over.
worker_connections = settings.worker_connections
# The accept queue: a thousand clients that reconnect at once must not be refused (bounded by net.core.somaxconn).
backlog = 4096

# A watchdog for an event loop that is stuck: the worker is replaced. Streams have time-outs of their own.
timeout = 30
# Beyond the drain by a margin, so that gunicorn never cuts what the drain is about to end.
graceful_timeout = settings.graceful_timeout
# Workers are never replaced for their number of requests: that stops accepting until every stream has ended.
max_requests = 0

# Header limits beside SSE_MAX_HEADER_BYTES.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = settings.sse_max_header_bytes
# Forwarded scheme only from proxies that are named.
forwarded_allow_ips = ",".join(str(network) for network in settings.sse_trusted_proxies) or "127.0.0.1"

# The heartbeat file that the watchdog reads must not be on a disk that can stall.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
# It would be created under the home directory, which a read-only container does not have.
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
    # After a reload the old workers accept until the new ones do.
    worker.replaced = health_hooks.replaced


def worker_exit(server, worker):
    health_hooks.worker_exit(server, worker)


def child_exit(server, worker):
    health_hooks.child_exit(server, worker)


def on_exit(server):
    health_hooks.on_exit(server)
