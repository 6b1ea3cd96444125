"""The service, with the environment's settings: what ``headwater serve`` runs."""

from .app import create_app
from .sse.serve.load import load

app = create_app(load())
