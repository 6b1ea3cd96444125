"""``headwater log check``: whether a log is sound, in words."""

from __future__ import annotations

import sys

import click

from ..errors import Failed, checked_settings, say
from ..local import log_tools
from ..progress import Progress


@click.command("check")
def command() -> None:
    """Say whether the log is sound. It may be in use, and is not changed.

    The status is 1 if it is not sound.
    """
    from ...sse.log.base import LogError

    tools = log_tools(checked_settings())
    try:
        with Progress("checking") as progress:
            report = tools.check(progress.step)
    except LogError as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    click.echo(report.log)
    for text in report.remarks:
        click.echo(f"note: {text}")
    for text in report.problems:
        click.echo(f"wrong: {text}")
    if report.problems:
        say("the log is not sound: docs/backup.md says what to do")
        sys.exit(1)
    click.echo("sound")
