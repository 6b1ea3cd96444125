"""Every setting of the service, read from the environment and a file, and checked before anything starts."""

from sse.settings.model import Settings
from sse.settings.report import SettingsError, redact_url, unknown_names

__all__ = ["Settings", "SettingsError", "redact_url", "unknown_names"]
