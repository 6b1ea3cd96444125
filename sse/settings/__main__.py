"""``python -m sse.settings`` prints the table of all settings, as it stands in docs/settings.md."""

from .table import table

print(table(), end="")
