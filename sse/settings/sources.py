"""Reads values from the environment, by exact name, and filters out those that do not count."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from .errors import is_service_address

# For a Service named `health`, Kubernetes sets HEALTH_PORT to its address; that is not our setting.
_PORTS = ("port", "health_port")
_MAY_BE_EMPTY = "sse_server_header"


class Environment(PydanticBaseSettingsSource):
    """The environment, by exact name: ``PORT``, not ``port``, which is a different variable on Unix."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return os.environ.get(field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: os.environ.get(name.upper()) for name in self.settings_cls.model_fields}
        return {name: value for name, value in found.items() if value is not None}


def what_is_set(values: Mapping[str, Any]) -> dict[str, Any]:
    """Strip ``values`` and drop those that count as not set.

    An empty entry in a ConfigMap or a Compose file means "not set", except that it removes the Server header.
    Surrounding whitespace is mostly the line break at a Secret's end.
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, str):
            value = value.strip()
        empty = value is None or (value == "" and name != _MAY_BE_EMPTY)
        if not empty and not (name in _PORTS and is_service_address(value)):
            found[name] = value
    return found
