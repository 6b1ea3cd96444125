"""What is done with an app's own iterable when nobody reads it any more."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("headwater")


def close_iterable(iterable: Any) -> None:
    """Close an iterable if it has a ``close``, and log any exception."""
    close = getattr(iterable, "close", None)
    try:
        if close is not None:
            close()
    except Exception:
        logger.exception("closing an iterable failed")
