"""The table: every raw-socket case. test_raw_sockets.py runs it against our server and against Go's."""

from __future__ import annotations

from tests.live.raw import connections, streams, syntax, timeouts
from tests.live.raw.case import Case

CASES: tuple[Case, ...] = (*timeouts.CASES, *streams.CASES, *connections.CASES, *syntax.CASES)
