"""``gunicorn -c gunicorn.conf.py wsgi:app``: the app with the environment's settings."""

from app import create_app
from settings import load

app = create_app(load())
