"""Folded stacks (`root;…;leaf count`, as py-spy writes them), and the part of the service that a sample belongs to.

Each sample belongs to one group, that of the deepest frame that a rule names: time in `json` or in a socket's `send`
counts for its caller. So the shares add up to 1, and a share times a request's CPU time is the group's cost.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, NamedTuple


class Frame(NamedTuple):
    """A function and the end of its file's path."""

    name: str
    file: str


class Stack(NamedTuple):
    """The frames from the root to the leaf, and how often they were seen."""

    frames: tuple[Frame, ...]
    count: int


class Rule(NamedTuple):
    """Puts a file, or its matching functions, into a group."""

    group: str
    file: str
    function: str = ""


# The first matching rule decides.
RULES: Final = (
    Rule("answer: head, body, send", r"sse/worker/response\.py"),
    Rule("answer: head, body, send", r"gunicorn/http/wsgi\.py", r"^Response"),
    Rule("environ", r"gunicorn/http/wsgi\.py"),
    Rule("environ", r"sse/worker/head_memory\.py", r"environ|^create"),
    Rule("parse: connection, header, body", r"gunicorn/http/|sse/worker/(?!worker|response|drain)"),
    Rule("auth and limits", r"sse/auth/"),
    Rule("tailer: read the log, dispatch", r"sse/log/", r"follow|Wakeup|Watch|_page|_query|\bread\b|touch|wait"),
    Rule("log append", r"sse/log/"),
    Rule("tailer: read the log, dispatch", r"sse/streams/(hub|tailer|retention|window)\.py"),
    Rule("fan-out: pass and write", r"sse/fanout/|sse/streams/group\.py"),
    Rule("view: publish or stream", r"sse/web/|sse/events/|sse/extension\.py"),
    Rule("metrics and access log", r"sse/streams/stats\.py|sse/observe/|prometheus_client/|health/"),
    Rule("Flask: context, routing, response", r"flask/|werkzeug/"),
    Rule("worker", r"sse/worker/|gunicorn/"),
)
LOOP: Final = "event loop and greenlet switches"
OTHER: Final = "other"

_FRAME = re.compile(r"^(?P<name>.*) \((?P<file>.*?)(?::\d+)?\)$")


def parse(text: str) -> list[Stack]:
    """Parse a folded file; any other line is an error."""
    stacks = []
    for line in text.splitlines():
        path, _, number = line.rpartition(" ")
        stacks.append(Stack(tuple(_frame(word) for word in path.split(";")), int(number)))
    return stacks


def _frame(word: str) -> Frame:
    found = _FRAME.match(word)
    return Frame(found["name"], found["file"]) if found else Frame(word or "(no Python frame)", "")


def group_of(stack: Stack) -> str:
    """Return the group that the stack's samples belong to."""
    for frame in reversed(stack.frames):
        for rule in RULES:
            if re.search(rule.file, frame.file) and re.search(rule.function, frame.name):
                return rule.group
    return LOOP if any("gevent/" in frame.file for frame in stack.frames) else OTHER


def shares(stacks: list[Stack]) -> dict[str, float]:
    """Return each group's share of all samples, the largest first."""
    counted: Counter[str] = Counter()
    for stack in stacks:
        counted[group_of(stack)] += stack.count
    total = counted.total()
    return {group: number / total for group, number in counted.most_common()}


def hot_spots(stacks: list[Stack], most: int) -> list[tuple[Frame, float, float]]:
    """Return functions with their shares of samples, alone and with all that they called, sorted by the former."""
    own: Counter[Frame] = Counter()
    inclusive: Counter[Frame] = Counter()
    for stack in stacks:
        own[stack.frames[-1]] += stack.count
        for frame in set(stack.frames):
            inclusive[frame] += stack.count
    total = max(own.total(), 1)
    return [(frame, number / total, inclusive[frame] / total) for frame, number in own.most_common(most)]
