"""gunicorn's worker for streams: ``worker_class = "sse.worker.SSEWorker"``."""

from .worker import SSEWorker

__all__ = ["SSEWorker"]
