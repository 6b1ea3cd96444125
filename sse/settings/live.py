"""Reads settings, and changes them while they are in use.

One object holds a process's settings for its whole life. Other code keeps that object and reads an attribute at the
point of use. We check a change as a whole on a second object, then replace all values of the first at once. So requests
and events neither check for changes nor wait for them. Only code that derives something from a setting (keys, counters,
a level) registers with :meth:`LiveSettings.on_change`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, ClassVar, Self, cast
from weakref import WeakMethod

from pydantic import PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .conflicts import conflicts
from .errors import SettingsError, explain, is_live, written
from .file import FILE_SETTING, SettingsFile, parse, read_file
from .sources import Environment, what_is_set

# Checks new settings and returns a function that applies them, which must not fail. Raises ValueError (without
# secrets in its text) for settings that it cannot use.
Prepare = Callable[[Any], Callable[[], None]]


def named_file(path: object) -> SettingsFile:
    """Read the settings file at ``path``; an empty one if no path is given. Raises SettingsError."""
    name = str(path or "").strip()
    return parse(name, read_file(name)) if name else SettingsFile()


class LiveSettings(BaseSettings):
    """See the module docstring. :class:`sse.settings.model.Settings` defines the settings."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a secret must not get into a traceback
    )

    reads_environment: ClassVar[bool] = True

    # Values in addition to those of the environment and the file; and the functions from ``on_change``.
    _given: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _prepares: list[Callable[[], Prepare | None]] = PrivateAttr(default_factory=list)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the arguments (with the settings file's values), then the environment; never the working directory's .env
        file. Pydantic defines the parameters."""
        return (init_settings, Environment(settings_cls)) if cls.reads_environment else (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_set(cls, values: Any) -> Any:
        return what_is_set(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Self:
        """Report all conflicts between settings at once."""
        if lines := conflicts(cast(Any, self)):
            raise PydanticCustomError("conflict", "settings that conflict", {"lines": lines})
        return self

    # -- Reading

    @classmethod
    def names(cls) -> dict[str, str]:
        """Map setting names to attributes."""
        return {name.upper(): name for name in cls.model_fields}

    @classmethod
    def from_environ(cls, file: SettingsFile | None = None) -> Self:
        """Read the settings from this process's environment and the file that SSE_CONFIG_FILE names.

        file: use this instead of that file.

        Raises SettingsError, with one line for each invalid setting.
        """
        return cls.read({}, named_file(os.environ.get(FILE_SETTING)) if file is None else file)

    @classmethod
    def read(cls, given: Mapping[str, Any], file: SettingsFile) -> Self:
        """Read settings from ``given`` (by attribute) and ``file``, which wins. Raises SettingsError."""
        names = cls.names()
        # An empty value counts as not set: the environment's value stays.
        values = what_is_set({names[name]: text for name, text in file.values.items() if name in names})
        try:
            settings = cls(**{**given, **values})
        except ValidationError as error:
            problem = explain(error, cls.model_fields, file.where())
        else:
            settings._given = given
            return settings
        raise problem  # outside the handler, because pydantic's error holds the values, with secrets

    # -- Changing

    def again(self, file: SettingsFile) -> Self:
        """Read the settings again, with this file, into a new object. Raises SettingsError."""
        return self.read(self._given, file)

    def as_far_as_live(self, new: Self) -> tuple[Self, list[str]]:
        """Return ``new`` with our values for the settings that need a restart, and the names of those that differ.

        Raises SettingsError if the mixed settings conflict.
        """
        fixed = {name: getattr(self, name) for name, field in type(self).model_fields.items() if not is_live(field)}
        waiting = [name for name, value in fixed.items() if getattr(new, name) != value]
        mixed = new.model_copy(update=fixed)
        if waiting and (lines := conflicts(cast(Any, mixed))):
            raise SettingsError([f"{text}, before a restart" for text in lines])
        return mixed, waiting

    def differences(self, new: Self, names: list[str] | None = None) -> list[str]:
        """Describe each changed setting (of ``names``) as ``SSE_HEARTBEAT 15 → 5``, with secrets hidden."""
        fields = type(self).model_fields
        return [
            f"{name.upper()} {written(getattr(self, name), fields[name])} → {written(getattr(new, name), fields[name])}"
            for name in (fields if names is None else names)
            if getattr(self, name) != getattr(new, name)
        ]

    def on_change(self, prepare: Prepare) -> None:
        """Register ``prepare``, to be called with new settings before they take effect.

        A bound method does not keep its object alive: when that is gone, the method is no longer called.
        """
        found = [known for known in self._prepares if known() is not None]
        found.append(WeakMethod(prepare) if isinstance(prepare, MethodType) else lambda: prepare)
        self._prepares[:] = found

    def become(self, new: Self) -> Callable[[], None]:
        """Run all registered checks on ``new``, and return a function that applies it.

        Raises ValueError; then nothing has changed.
        """
        commits = [prepare(new) for known in self._prepares if (prepare := known()) is not None]

        def change() -> None:
            # Bypass `frozen`, which is there to stop everybody else.
            object.__setattr__(self, "__dict__", dict(new.__dict__))
            object.__setattr__(self, "__pydantic_fields_set__", set(new.model_fields_set))
            for commit in commits:
                commit()

        return change
