"""Every setting of the service, read from the environment and a file, and checked before anything starts."""

from .errors import SettingsError, redact_url, unknown_names
from .model import Settings

__all__ = ["Settings", "SettingsError", "redact_url", "unknown_names"]
