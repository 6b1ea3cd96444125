"""``--url`` and its credential: the options of commands that also talk to a service elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .errors import Failed

if TYPE_CHECKING:
    from .remote import Service

Command = TypeVar("Command", bound=Callable[..., Any])


def _read_token(ctx: click.Context, param: click.Parameter, file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        lines = file.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise click.BadParameter(f"{file}: {reason}", ctx, param) from None
    if not lines:
        raise click.BadParameter(f"{file} is empty", ctx, param)
    return lines[0]


def remote_options(command: Command) -> Command:
    """Add ``url`` and ``token`` (read from a file: a command line is shown to everybody on the machine)."""
    url = click.option(
        "--url",
        envvar="HEADWATER_URL",
        metavar="URL",
        help="The service's address, such as http://localhost:8080; else HEADWATER_URL; else the log itself is used.",
    )
    token = click.option(
        "--token-file",
        "token",
        envvar="HEADWATER_TOKEN_FILE",
        type=click.Path(path_type=Path),
        callback=_read_token,
        help="A file with the publish key or token to send; else HEADWATER_TOKEN has the key or token itself.",
    )
    return url(token(command))


def service_at(url: str, token: str | None) -> Service:
    """Return the service. Raises Failed for what cannot be its address."""
    import os

    from .remote import Service

    token = token or os.environ.get("HEADWATER_TOKEN", "").strip() or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise Failed("the key or token has characters that a header cannot carry")
    return Service(url, token)
