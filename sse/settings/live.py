"""Settings that change while they are used: how they are read, read again, and exchanged.

One object is the process's settings for its whole life, and everybody who needs a setting holds that object and
reads the attribute when it is needed. A change is checked as a whole on an object of its own; then the values are
exchanged under that one object, all at once. So nothing has to be asked on the way of a request or an event, and
nobody has to be told, but for the few who have made something of a setting (keys, counters, a level): these
register with :meth:`LiveSettings.on_change`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, cast

from pydantic import PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .conflicts import conflicts
from .errors import SettingsError, explain, is_live, written
from .file import FILE_SETTING, SettingsFile, parse, read_file
from .sources import Environment, what_is_set

# Checks new settings, raising ValueError (without a secret in its text) for those that it cannot use; returns what
# takes them into use, which must not fail.
Prepare = Callable[[Any], Callable[[], None]]


def named_file(path: object) -> SettingsFile:
    """The settings file at ``path``, as it is now; none where nothing is named. Raises SettingsError."""
    name = str(path or "").strip()
    return parse(name, read_file(name)) if name else SettingsFile()


class LiveSettings(BaseSettings):
    """See the module's text. The settings themselves are in :class:`sse.settings.model.Settings`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a secret must not get into a traceback
    )

    reads_environment: ClassVar[bool] = True

    # What was handed over, beside the environment and the file; and who has made something of a setting.
    _given: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _prepares: list[Prepare] = PrivateAttr(default_factory=list)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments (the settings file's values among them), then the environment; no .env file of whatever
        directory we were started in. (The parameters are pydantic's.)"""
        return (init_settings, Environment(settings_cls)) if cls.reads_environment else (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_set(cls, values: Any) -> Any:
        return what_is_set(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Settings that are fine alone and cannot stand together, all of them at once."""
        if lines := conflicts(cast(Any, self)):
            raise PydanticCustomError("conflict", "settings that exclude each other", {"lines": lines})
        return self

    # -- Reading

    @classmethod
    def names(cls) -> dict[str, str]:
        """The settings that may be set: name → attribute."""
        return {name.upper(): name for name in cls.model_fields}

    @classmethod
    def from_environ(cls, file: SettingsFile | None = None) -> Self:
        """The settings of this process's environment, and of the file that its SSE_CONFIG_FILE names.

        :param file: what counts as that file's content.
        :raises SettingsError: with one line for each setting that cannot be used.
        """
        return cls.read({}, named_file(os.environ.get(FILE_SETTING)) if file is None else file)

    @classmethod
    def read(cls, given: Mapping[str, Any], file: SettingsFile) -> Self:
        """The settings that are ``given`` by attribute; those in ``file`` win. Raises SettingsError."""
        names = cls.names()
        # An empty value says nothing: what the environment has stays.
        values = what_is_set({names[name]: text for name, text in file.values.items() if name in names})
        try:
            settings = cls(**{**given, **values})
        except ValidationError as error:
            problem = explain(error, cls.model_fields, file.where())
        else:
            settings._given = given
            return settings
        raise problem  # outside of the handler: the error of pydantic holds the values, secrets included

    # -- Changing

    def again(self, file: SettingsFile) -> Self:
        """What these settings would be if they were read now, with this file. Raises SettingsError."""
        return self.read(self._given, file)

    def as_far_as_live(self, new: Self) -> tuple[Self, list[str]]:
        """``new``, but what needs a restart as it is here; and the attributes in which these two differ.

        Raises SettingsError when those two cannot stand together.
        """
        fixed = {name: getattr(self, name) for name, field in type(self).model_fields.items() if not is_live(field)}
        waiting = [name for name, value in fixed.items() if getattr(new, name) != value]
        mixed = new.model_copy(update=fixed)
        if waiting and (lines := conflicts(cast(Any, mixed))):
            raise SettingsError([f"{text}, before a restart" for text in lines])
        return mixed, waiting

    def differences(self, new: Self, names: list[str] | None = None) -> list[str]:
        """``SSE_HEARTBEAT 15 → 5``: one text for each setting (of ``names``) that is another one, secrets hidden."""
        fields = type(self).model_fields
        return [
            f"{name.upper()} {written(getattr(self, name), fields[name])} → {written(getattr(new, name), fields[name])}"
            for name in (fields if names is None else names)
            if getattr(self, name) != getattr(new, name)
        ]

    def on_change(self, prepare: Prepare) -> None:
        """Have ``prepare`` called with new settings before they are these."""
        self._prepares.append(prepare)

    def become(self, new: Self) -> Callable[[], None]:
        """Have all who need it check ``new``. Raises ValueError, and nothing has changed; else returns what makes
        the change."""
        commits = [prepare(new) for prepare in self._prepares]

        def change() -> None:
            # Past the model's own lock, which is against everybody else.
            object.__setattr__(self, "__dict__", dict(new.__dict__))
            object.__setattr__(self, "__pydantic_fields_set__", set(new.model_fields_set))
            for commit in commits:
                commit()

        return change
