"""Where the routes of an app stand: SSE_URL_PREFIX is the place of ``/events``, and the others stand beside it.

With ``/live/events``, the channels are listed at ``/live/channels``, so an app can keep all of ours under one path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Flask
from flask.sansio.app import App
from flask.sansio.blueprints import BlueprintSetupState

_EVENTS: Final = "/events"


def placed(rule: str, prefix: str) -> str:
    """Return where a route stands that has this path by default."""
    if rule == _EVENTS or rule.startswith(f"{_EVENTS}/"):
        return prefix + rule.removeprefix(_EVENTS)
    return prefix.rpartition("/")[0] + rule


class _State(BlueprintSetupState):
    def add_url_rule(
        self, rule: str, endpoint: str | None = None, view_func: Callable[..., Any] | None = None, **options: Any
    ) -> None:
        super().add_url_rule(placed(rule, self.options["events"]), endpoint, view_func, **options)


class PlacedBlueprint(Blueprint):
    """A blueprint whose routes are written as they are by default."""

    def place(self, app: Flask, prefix: str) -> None:
        """Register the routes at this prefix."""
        app.register_blueprint(self, events=prefix)

    def make_setup_state(self, app: App, options: dict[str, Any], first_registration: bool = False) -> _State:
        return _State(self, app, options, first_registration)
