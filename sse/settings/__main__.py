"""``python -m sse.settings`` prints the table of all settings, as it stands in docs/settings.md."""

from sse.settings.table import table

print(table(), end="")
