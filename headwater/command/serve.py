"""``headwater serve``: the service, or an app of one's own, under gunicorn with our worker, hooks and logs."""

from __future__ import annotations

import os
import sys

import click


@click.command("serve")
@click.option(
    "--app",
    "app",
    metavar="MODULE:APP",
    default="headwater.wsgi:app",
    help="An app of your own that has SSE(app) and Health(app): myapp:app, or a factory, 'myapp:create_app()'.",
)
@click.argument("gunicorn", nargs=-1, type=click.UNPROCESSED)
def command(app: str, gunicorn: tuple[str, ...]) -> None:
    """Run the service, by the settings in the environment (headwater config shows them).

    Options of gunicorn may follow after --, such as: headwater serve -- --certfile tls.crt --keyfile tls.key
    """
    if ":" not in app:
        app += ":app"
    # In this process's place: signals reach gunicorn's master, and its re-execution (SIGUSR2) finds a command line that
    # it can repeat. -P: a module of the app's folder must not stand in for one that gunicorn needs at its start.
    words = [sys.executable, "-P", "-m", "gunicorn", "-c", "python:headwater.gunicorn_conf", *gunicorn, app]
    sys.stdout.flush()
    os.execv(sys.executable, words)
