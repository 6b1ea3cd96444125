"""gunicorn's configuration by somebody who knows nothing of our hooks: a worker class and an address."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
worker_class = os.environ.get("WORKER", "sse.worker.SSEWorker")
control_socket_disable = True
graceful_timeout = 30
