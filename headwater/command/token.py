"""``headwater token``: mints a token with the service's own key."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import click

from .errors import Failed, checked_settings, say
from .values import checked, duration, patterns

# Longer is for ever: only another key would end such a token.
_MOST_DAYS = 3653

_allows = partial(click.option, multiple=True, callback=checked(patterns), metavar="PATTERNS")


@click.command("token")
@_allows("--publish", help="Channels to publish to, or patterns such as 'orders:*'; several by commas.")
@_allows("--subscribe", help="The same for reading.")
@_allows("--manage", help="The same for erasing, listing and revoking.")
@click.option("--sub", metavar="NAME", help="Whose token it is, for logs and for the publish rate.")
@click.option("--expires", default="1h", show_default=True, callback=checked(duration), help="Its life: 15m, 12h, 30d.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The private key (PEM) or secret to sign with, where the service has only a public key.",
)
@click.option("--kid", help="Which of the service's keys to sign with; with --key-file: that key's id.")
def command(
    publish: tuple[list[str], ...],
    subscribe: tuple[list[str], ...],
    manage: tuple[list[str], ...],
    sub: str | None,
    expires: int,
    key_file: Path | None,
    kid: str | None,
) -> None:
    """Print a token (JWT), signed with SSE_JWT_KEY or the key of SSE_JWT_KEY_FILE or SSE_JWKS_FILE."""
    if not (publish or subscribe or manage):
        raise click.UsageError("the token would allow nothing: give --publish, --subscribe or --manage")
    if not 0 < expires <= _MOST_DAYS * 86400:
        raise click.BadParameter(f"1s to {_MOST_DAYS}d", param_hint="--expires")
    from ..sse.auth.cli import signing_key
    from ..sse.auth.decision import BadAuthSetting
    from ..sse.auth.tokens import mint

    settings = checked_settings()
    try:
        key = signing_key(settings, key_file, kid)
    except (BadAuthSetting, click.ClickException) as error:
        raise Failed(str(error)) from None
    click.echo(
        mint(
            key,
            publish=sum(publish, []),
            subscribe=sum(subscribe, []),
            manage=sum(manage, []),
            ttl=expires,
            subject=sub,
            issuer=settings.sse_jwt_issuer,
            audience=settings.sse_jwt_audience,
        )
    )
    until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + expires))
    say(f"signed by {key.algorithm}, valid until {until}")
