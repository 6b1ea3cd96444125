"""What one does to a whole Redis log from outside of the service: see ``sse.log.tools``."""

from __future__ import annotations

from ..tools import Copying, Loader
from .load import RedisLoader, check_free, receipt
from .url import RedisUrl


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

    def loader(self, *, force: bool) -> Loader:
        return RedisLoader(*self._place, force=force)
