"""``headwater config``: every setting, checked, and where its value is from."""

from __future__ import annotations

import os

import click

from .errors import checked_settings, refusing, say


@click.command("config")
@click.option("--set", "only_set", is_flag=True, help="Only settings that are set, not those with their default.")
def command(only_set: bool) -> None:
    """Print the settings that the service would run with, and where each comes from.

    Secrets are masked. Settings that cannot be used are told in a line each, with status 2.
    """
    from ..sse.settings import SettingsError, unknown_names
    from ..sse.settings.errors import written
    from ..sse.settings.file import FILE_SETTING
    from ..sse.settings.live import named_file
    from ..sse.settings.model import Settings
    from ..sse.settings.sources import what_is_set

    settings = checked_settings()
    with refusing(SettingsError):
        file = named_file(os.environ.get(FILE_SETTING))
    names = Settings.names()
    for line in [*unknown_names(os.environ, names), *file.unknown(names)]:
        say(line)
    in_file = what_is_set({attribute: file.values.get(name) for name, attribute in names.items()})
    in_environment = what_is_set({attribute: os.environ.get(name) for name, attribute in names.items()})
    places = file.where()
    rows = []
    for name, attribute in names.items():
        source = places[name] if attribute in in_file else "environment" if attribute in in_environment else "default"
        if not (only_set and source == "default"):
            rows.append((name, written(getattr(settings, attribute), Settings.model_fields[attribute]), source))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)] if rows else [0, 0]
    for name, value, source in rows:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
