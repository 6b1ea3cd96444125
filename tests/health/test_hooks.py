"""Gunicorn's hooks in a worker whose callable is not the app."""

from __future__ import annotations

import flask
import pytest

from health import Health, hooks
from health.signs import board


def test_each_extension_of_a_process_is_started_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board.process, "extensions", [])
    apps = [flask.Flask(name) for name in ("one", "two")]
    found = [Health(app).current for app in apps]
    assert board.extensions() == found
    worker = object()
    hooks.post_worker_init(worker)
    try:
        assert all(health._pulse is not None for health in found)
    finally:
        hooks.worker_exit(None, worker)
    assert all(health._pulse is None for health in found)
