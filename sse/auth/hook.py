"""An app's own decision about who may do what (``@sse.authorize``), which comes before keys and tokens."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from ..runtime.redaction import one_line
from . import decision
from .revoked import MAX_SUBJECT_CHARS, subject_name

Action: TypeAlias = Literal["publish", "subscribe", "manage"]

# A stream that ends sooner would be sent away before it gets its first event, and again whenever it returns.
MIN_SECONDS: Final = 1.2


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission given by the app.

    subject: who this is, for logs, the publish rate and ``sse.disconnect(subject=…)``; None if it does not matter.
    expires_in: seconds until a stream ends cleanly; its client returns, and the app is asked again. None: no limit.
    Raises TypeError or ValueError for anything else.
    """

    subject: str | None = None
    expires_in: float | None = None

    def __post_init__(self) -> None:
        if self.subject is not None and not (isinstance(self.subject, str) and self.subject):
            raise TypeError(f"subject is a str that is not empty, or None, not {self.subject!r}")
        seconds = self.expires_in
        if seconds is None:
            return
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"expires_in is a number of seconds or None, not {seconds!r}")
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"expires_in is a number of seconds above 0, not {seconds!r}")


# Called with the request, the action, and all names and patterns that the request asks for.
May: TypeAlias = Callable[[Any, Action, tuple[str, ...]], bool | Grant | None]


def ask(may: May, request: Any, action: Action, channels: tuple[str, ...], anonymous: str) -> decision.Grant | None:
    """Ask the app; None if keys and tokens decide.

    anonymous: the subject of a request whose own the app does not name.
    Raises AccessDenied if the app refuses, TypeError if it returns something else, and whatever it raises.
    """
    answer = may(request, action, channels)
    if answer is None:
        return None
    if answer is True:
        return decision.Grant(anonymous)
    if answer is False:
        raise decision.forbidden("Not allowed", f"this service does not allow you to {action} here", "app")
    if not isinstance(answer, Grant):
        raise TypeError(f"a function for sse.authorize returns True, False, None or sse.Grant, not {answer!r}")
    until = None if answer.expires_in is None else time.time() + max(answer.expires_in, MIN_SECONDS)
    if answer.subject is None:
        return decision.Grant(anonymous, until)
    return decision.Grant(f"app:{one_line(answer.subject, MAX_SUBJECT_CHARS)}", until, subject_name(answer.subject))
