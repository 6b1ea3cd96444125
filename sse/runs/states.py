"""The life of a run. Whatever decides a run's state is in this module.

    starting ──▶ running ──┬──▶ done      its iterable has ended
        │                  ├──▶ stopped   somebody stopped it
        │                  ├──▶ error     its iterable raised, or what it yielded could not be stored
        └──────────────────┴──▶ lost      its worker died, or was drained before the iterable had ended

A run *starts* when a worker claims its channel in the log. It *runs* once the log knows it by its id; then its iterable
is pulled. It has one end, a record ``run`` in its channel, and with the end the channel is closed, unless the app
wanted it to stay open.

There is exactly one end, whoever writes it and whoever dies. In its own worker the first decision counts
(``Run.conclude``). Another worker may end a run only after it has taken the claim over, which it may try once the
owner's lease is over (``leases``). And the end is appended under an idempotency key made of the run's id, so the log
itself refuses a second one (``ends``).
"""

from __future__ import annotations

import enum
from typing import Any, Final, NamedTuple


class State(enum.StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    ERROR = "error"
    LOST = "lost"


class Actor(enum.StrEnum):
    """Who causes a step.

    owner     the worker that runs it
    iterable  the app's iterable, by what it does
    stopper   whoever may publish to its channel, on any pod; the owner carries it out
    drain     the owner, when it has to end
    reaper    any other worker, once the owner's lease is over
    """

    OWNER = "owner"
    ITERABLE = "iterable"
    STOPPER = "stopper"
    DRAIN = "drain"
    REAPER = "reaper"


#: Who may cause each step. Every other step is a bug.
STEPS: Final[dict[tuple[State, State], frozenset[Actor]]] = {
    (State.STARTING, State.RUNNING): frozenset({Actor.OWNER}),
    (State.STARTING, State.LOST): frozenset({Actor.REAPER}),
    (State.RUNNING, State.DONE): frozenset({Actor.ITERABLE}),
    (State.RUNNING, State.STOPPED): frozenset({Actor.STOPPER}),
    (State.RUNNING, State.ERROR): frozenset({Actor.ITERABLE, Actor.OWNER}),
    (State.RUNNING, State.LOST): frozenset({Actor.REAPER, Actor.DRAIN}),
}

#: The states of a run that goes on, and those of one that has ended.
OPEN: Final = (State.STARTING, State.RUNNING)
ENDS: Final = (State.DONE, State.STOPPED, State.ERROR, State.LOST)


class WrongStep(Exception):
    """A step that ``STEPS`` does not have."""


def check_step(before: State, after: State, by: Actor) -> None:
    """Raise ``WrongStep`` unless this actor may take a run from one state to the other."""
    if by not in STEPS.get((before, after), ()):
        raise WrongStep(f"{by} may not take a run from {before} to {after}")


class Outcome(NamedTuple):
    """How a run ends.

    usage: what the iterable returned, for ``done``; error: text for clients.
    """

    state: State
    by: Actor
    usage: Any = None
    error: str | None = None


class RunError(Exception):
    """Ends a run as ``error``, with a text for clients: its iterable does ``raise sse.RunError("no credit left")``."""


class RunActive(Exception):
    """The channel has a run that has not ended. ``run`` is its id."""

    def __init__(self, channel: str, run: str) -> None:
        super().__init__(f"the channel {channel} has a run already: {run}")
        self.channel = channel
        self.run = run


class RunsFull(Exception):
    """This worker has as many runs as it may (SSE_MAX_RUNS). retry_after: seconds."""

    def __init__(self, limit: int, retry_after: float = 1.0) -> None:
        super().__init__(f"this worker has {limit} runs, and takes no more (SSE_MAX_RUNS)")
        self.retry_after = retry_after
