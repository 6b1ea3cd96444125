"""All settings of the service, read from the environment and a file, and checked at startup."""

from .errors import SettingsError, unknown_names
from .model import Settings

__all__ = ["Settings", "SettingsError", "unknown_names"]
