"""Checks that an app adds: ``health.add_check("database", ping)``.

A check may block, raise or hang, so it runs in the background on its own schedule, in a real thread (under gevent in a
thread pool, so that blocking C code delays no stream). A probe only reads its last outcome. A check has at most one run
at a time. One that hangs holds one thread, counts as failed after its time-out, and recovers when it returns. A
time-out interrupts nothing: each probe computes whether the run is late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..signs.board import BEAT_INTERVAL
from ..threads import Spawn, real_threads
from .table import TABLE, Check, Question, Snapshot

logger = logging.getLogger("headwater.health")

CheckFunction = Callable[[], bool | str | None]
"""Passes by returning None or True; fails by returning False or a reason, or by raising."""


class UserCheck:
    """One added check: its schedule, its present run and its last outcome. Times are monotonic seconds."""

    def __init__(self, name: str, function: CheckFunction, interval: float, timeout: float) -> None:
        self.name = name
        self.interval = interval
        self.timeout = timeout
        self._function = function
        self._spawn: Spawn | None = None
        self._began: float | None = None  # of the present run
        self._last_began: float | None = None
        self._finished = False
        self._reason: str | None = None

    def due(self, now: float) -> bool:
        """Tell whether a run should begin now. Never during a run, so that threads cannot pile up."""
        if self._began is not None:
            return False
        return self._last_began is None or now - self._last_began >= self.interval

    def begin(self, now: float) -> None:
        """Begin a run in its own thread."""
        self._began = self._last_began = now
        try:
            if self._spawn is None:
                self._spawn = real_threads()
            self._spawn(self._run)
        except Exception as error:  # RuntimeError: can't start new thread
            self._end(f"could not be run: {type(error).__name__}")

    def _run(self) -> None:
        try:
            outcome = self._function()
        except BaseException as error:  # sys.exit() must end only the check
            # Threat: an exception's text may contain a password (in a database URL), and anybody may ask a probe. So
            # the log gets the text, and the answer only the type.
            if self._reason is None:
                logger.warning("health check %s failed", self.name, exc_info=True)
            self._end(f"raised {type(error).__name__}")
        else:
            if outcome is None or outcome is True:
                self._end(None)
            else:
                self._end(outcome if isinstance(outcome, str) and outcome else "said no")

    def _end(self, reason: str | None) -> None:
        # Called in another thread. Each assignment is atomic, and the last one ends the run.
        self._reason = reason
        self._finished = True
        self._began = None

    def reason(self, now: float, *, pending_ok: bool) -> str | None:
        """Return why the check counts as failed now; None if it passes. pending_ok: it passes before its first run."""
        began = self._began
        if began is not None and now - began > self.timeout:
            return f"no answer for {now - began:.1f} s, the time-out is {self.timeout:g} s"
        if not self._finished:
            return None if pending_ok else "has not finished its first run yet"
        return self._reason


class UserChecks:
    """The checks that an app has added; starts their runs."""

    def __init__(self) -> None:
        self._checks: dict[str, UserCheck] = {}
        self.table: tuple[Check, ...] = ()

    def add(
        self, name: str, function: CheckFunction, *, live: bool, ready: bool, interval: float, timeout: float
    ) -> None:
        """See ``health.apps.Health.add_check``."""
        if not name or not name.isascii() or not name.isprintable() or " " in name:
            raise ValueError(f"a check's name is printable ASCII without spaces, not {name!r}")
        if name in self._checks or any(name == check.name for check in TABLE):
            raise ValueError(f"there already is a check named {name!r}")
        if not (live or ready):
            raise ValueError(f"check {name!r} counts for nothing: set live, ready or both")
        if not interval >= BEAT_INTERVAL:
            raise ValueError(f"interval of check {name!r}: at least {BEAT_INTERVAL} s, not {interval!r}")
        if not timeout > 0:
            raise ValueError(f"timeout of check {name!r}: more than 0 seconds, not {timeout!r}")
        check = self._checks[name] = UserCheck(name, function, interval, timeout)
        asks = f"an app's own check, every {interval:g} s, time-out {timeout:g} s"

        def row(*questions: Question, pending_ok: bool) -> Check:
            def verdict(snapshot: Snapshot) -> str | None:
                return check.reason(snapshot.now, pending_ok=pending_ok)

            return Check(name, frozenset(questions), verdict, asks)

        # Before its first run it delays readiness and start-up, but restarts nothing.
        rows = [row("live", pending_ok=True)] if live else []
        rows.append(row("ready", "started", pending_ok=False) if ready else row("started", pending_ok=False))
        self.table += tuple(rows)

    def run_due(self) -> None:
        """Begin the runs that are due. Call it every ``health.signs.board.BEAT_INTERVAL`` seconds."""
        now = time.monotonic()
        for check in list(self._checks.values()):
            if check.due(now):
                check.begin(now)
