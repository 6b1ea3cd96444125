"""``flask --app wsgi sse token``: mints a token with the service's own key.

For scripts, for experiments, and for applications that do not issue tokens yet.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..events.patterns import check_pattern
from .configure import AuthSettings, token_keys
from .decision import BadAuthSetting

if TYPE_CHECKING:
    from .keys import Key

# 10 years, in seconds. A longer lifetime is for ever, and only a new key would end it.
_MAX_TTL = 3653 * 86400


def _patterns(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """Parse ``--publish a --publish b`` and ``--publish a,b`` alike."""
    patterns = [part.strip() for value in values for part in value.split(",") if part.strip()]
    try:
        return [check_pattern(pattern) for pattern in patterns]
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def sse_commands(settings: Callable[[], AuthSettings]) -> click.Group:
    """Return the command group ``sse`` for ``app.cli``. ``settings`` is called when a command runs."""

    @click.group("sse")
    def group() -> None:
        """Headwater: events."""

    @group.command("token")
    @click.option("--publish", multiple=True, callback=_patterns, help="Channels or patterns: 'orders:*'.")
    @click.option("--subscribe", multiple=True, callback=_patterns, help="The same for reading.")
    @click.option("--manage", multiple=True, callback=_patterns, help="The same for erasing, listing and revoking.")
    @click.option("--ttl", type=click.IntRange(1, _MAX_TTL), default=3600, show_default=True, help="Seconds.")
    @click.option("--subject", help="Whose token it is, for logs and for the publish rate.")
    @click.option(
        "--key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The private key (PEM) or secret to sign with, if the service itself has only a public key.",
    )
    @click.option("--kid", help="Which of the service's keys to sign with; with --key-file: that key's id.")
    def token(
        publish: list[str],
        subscribe: list[str],
        manage: list[str],
        ttl: int,
        subject: str | None,
        key_file: Path | None,
        kid: str | None,
    ) -> None:
        """Print a token (JWT) for publishing to, reading, and managing the channels that the patterns match."""
        if not (publish or subscribe or manage):
            raise click.UsageError("the token would allow nothing: give --publish, --subscribe or --manage")
        from .tokens import mint

        ours = settings()
        try:
            key = signing_key(ours, key_file, kid)
        except BadAuthSetting as error:
            raise click.ClickException(str(error)) from None
        minted = mint(
            key,
            publish=publish,
            subscribe=subscribe,
            manage=manage,
            ttl=ttl,
            subject=subject,
            issuer=ours.sse_jwt_issuer,
            audience=ours.sse_jwt_audience,
        )
        click.echo(minted)
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + ttl))
        click.echo(f"{key.algorithm}, valid until {until}", err=True)

    return group


def signing_key(settings: AuthSettings, key_file: Path | None, kid: str | None) -> "Key":
    """Return the key to sign with. Raises ClickException or BadAuthSetting."""
    from dataclasses import replace

    from .keys import parse_key

    keys: Sequence[Key]
    if key_file is not None:
        try:
            keys = parse_key(key_file.read_bytes(), allowed=tuple(settings.sse_jwt_algorithms))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise click.ClickException(f"{key_file}: {reason}") from None
        keys = [replace(key, kid=kid or key.kid) for key in keys]
    else:
        keys = [key for source in token_keys(settings) for key in source() if kid is None or key.kid == kid]
    for key in keys:
        if key.signer is not None:
            return key
    if keys or settings.sse_jwt_key or settings.sse_jwt_key_file or settings.sse_jwks_file:
        raise click.ClickException("none of these keys can sign: give the private key with --key-file")
    raise click.ClickException(
        "tokens are not configured: set SSE_JWT_KEY, for example to the output of 'openssl rand -base64 48'"
    )
