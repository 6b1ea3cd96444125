"""What one does to a whole Redis log from outside of the service: see ``sse.log.tools``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from ..tools import Copying, Loader, Report
from .client import Client
from .load import RedisLoader, check_free, receipt
from .url import RedisUrl
from .verify import verify


class RedisTools:
    """The tools for the log at ``target``. prefix: the first part of every key."""

    def __init__(self, target: RedisUrl, prefix: str) -> None:
        self._place = target, prefix

    def check_free(self) -> None:
        check_free(*self._place)

    def receipt(self) -> int:
        return receipt(*self._place)

    def backup(self, file: str, progress: Copying) -> int | None:
        return None

    def restore(self, file: str, progress: Copying, *, force: bool) -> int | None:
        return None

    def check(self, step: Callable[[str], object]) -> Report:
        target, prefix = self._place
        with closing(Client(target, prefix)) as client:
            return verify(client, step)

    def loader(self, *, force: bool) -> Loader:
        return RedisLoader(*self._place, force=force)
