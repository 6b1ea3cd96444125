"""A client that behaves like a browser's EventSource, and records what it gets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.sse_client import Ending, SSEClient, StreamEnded
from tests.support.sse_parser import BrokenFraming, StreamEvent
from tests.support.wait import eventually

_LOOK = 0.2  # seconds between two checks whether to stop


class Seen(NamedTuple):
    """One entry of the ledger: what arrived, on which connection (1, 2, …), when (``time.monotonic``)."""

    id: str
    event: str | None
    data: str
    connection: int
    at: float


class ResumingClient:
    """Connects in a thread, and again with ``Last-Event-ID`` after every end (WHATWG HTML §9.2.3).

    Like a browser it gives up for ever after any answer but 200 with ``text/event-stream``: see ``failed``. That it is
    told to by 204 is no failure: see ``is_over``.

    port: the server's, or a function called before every connection (a second instance takes over).
    target: the request target.
    last_event_id: the cursor of the first connection.
    retry: milliseconds until the server says otherwise.
    on_event: called with each block, in the client's thread.
    """

    def __init__(
        self,
        port: int | Callable[[], int],
        target: str,
        *,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry: int = 200,
        timeout: float = 5.0,
        on_event: Callable[[StreamEvent], None] | None = None,
    ) -> None:
        self._port = port
        self._target = target
        self._headers = headers
        self._timeout = timeout
        self._on_event = on_event
        self._stop = threading.Event()
        self.last_event_id = last_event_id
        self.retry = retry
        #: every published event, in the order of arrival
        self.ledger: list[Seen] = []
        #: openings, heartbeats, resets, retries
        self.control: list[StreamEvent] = []
        #: how each connection ended, in order; RESET also means that it could not be made
        self.endings: list[Ending] = []
        #: when it tried to connect (``time.monotonic()``)
        self.attempts: list[float] = []
        #: connections that were answered with a stream
        self.connections = 0
        self.failed: str | None = None
        #: 204: there will never be more
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name=f"resuming {target}", daemon=True)

    def start(self) -> Self:
        """Begin, as ``with`` does."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(self._timeout + 5)
            assert not self._thread.is_alive(), "the client's thread does not end"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── the books ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def ids(self) -> list[str]:
        """Return the ledger's ids, in the order of arrival."""
        return [entry.id for entry in self.ledger]

    @property
    def reconnects(self) -> int:
        """Return the number of streams after the first."""
        return max(self.connections - 1, 0)

    @property
    def resets(self) -> list[StreamEvent]:
        """Return the ``stream-reset`` events."""
        return [block for block in self.control if block.event == "stream-reset"]

    def duplicates(self) -> list[str]:
        """Return the ids that arrived more than once."""
        return [name for name, times in Counter(self.ids).items() if times > 1]

    def missing(self, expected: list[str]) -> list[str]:
        """Return those of ``expected`` that never arrived."""
        seen = set(self.ids)
        return [name for name in expected if name not in seen]

    def wait_for(self, condition: Callable[[ResumingClient], object], timeout: float = 10.0) -> None:
        """Wait until ``condition`` of this client is true.

        Raises AssertionError with the state after ``timeout`` seconds.
        """
        eventually(lambda: bool(condition(self)), timeout, lambda: f"{self}")

    def wait_connected(self, timeout: float = 5.0) -> None:
        """Wait for the first block (the opening) of the first stream."""
        self.wait_for(lambda client: client.control or client.ledger, timeout)

    def __repr__(self) -> str:
        endings = [ending.value for ending in self.endings]
        return (
            f"<ResumingClient {self._target}: {len(self.ledger)} events, {self.connections} connections, "
            f"endings {endings}, last {self.last_event_id}, failed {self.failed}>"
        )

    # ── the thread ─────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while not self._stop.is_set() and self.failed is None and not self.is_over:
            try:
                self.endings.append(self._once())
            except BrokenFraming as error:
                self.failed = f"broken framing: {error}"
            except OSError:
                self.endings.append(Ending.RESET)
            except StreamEnded as end:  # before its head was complete
                self.endings.append(end.ending)
            if self.failed is None:
                self._stop.wait(self.retry / 1000)

    def _once(self) -> Ending:
        self.attempts.append(time.monotonic())
        port = self._port if isinstance(self._port, int) else self._port()
        with SSEClient(
            port,
            self._target,
            last_event_id=self.last_event_id or None,  # an empty one is not sent (§9.2.3)
            headers=self._headers,
            timeout=self._timeout,
        ) as client:
            kind = client.headers.get("content-type", "")
            if client.status == 204:
                self.is_over = True
                return client.ending
            if client.status != 200 or kind.partition(";")[0].strip() != "text/event-stream":
                with contextlib.suppress(TimeoutError):
                    client.read_to_end(1.0)
                self.failed = f"{client.status} {kind} {bytes(client.body[:200])!r}"
                return client.ending
            self.connections += 1
            while not self._stop.is_set():
                try:
                    self._note(client.next_event(_LOOK))
                except TimeoutError:
                    continue
                except StreamEnded as end:
                    return end.ending
            return client.ending

    def _note(self, block: StreamEvent) -> None:
        if block.id is not None:
            self.last_event_id = block.id
        if block.retry is not None:
            self.retry = block.retry
        if block.is_control:
            self.control.append(block)
        else:
            name, now = self.last_event_id or "", time.monotonic()
            self.ledger.append(Seen(name, block.event, block.data or "", self.connections, now))
        if self._on_event is not None:
            self._on_event(block)
