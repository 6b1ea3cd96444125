"""How the command fails: in a line on standard error, with status 1, or with 2 where the call or a setting is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..sse.settings import Settings


def say(line: str) -> None:
    """Tell the person at the terminal; standard output is for what was asked for."""
    click.echo(f"headwater: {line}", err=True)


class Failed(click.ClickException):
    """What was asked for could not be done; the text says what happened, and what to do."""

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            say(line)


class BadSettings(Failed):
    """Settings that cannot be used: a line for each."""

    exit_code = 2


def checked_settings() -> Settings:
    """Read the settings from the environment and the settings file. Raises BadSettings."""
    from ..sse.settings import Settings, SettingsError

    with refusing(SettingsError):
        return Settings.from_environ()


@contextmanager
def refusing(*kinds: type[Exception]) -> Iterator[None]:
    """Raise BadSettings for these errors."""
    try:
        yield
    except kinds as error:
        raise BadSettings(str(error)) from None
