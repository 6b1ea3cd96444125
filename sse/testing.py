"""Helps to test an app that has SSE (docs/testing.md).

    from headwater.testing import captured, open_stream, stopping

    with stopping(create_app()) as app:
        with captured(app, "orders") as events:
            app.test_client().post("/orders", json={"item": "tea"})
        assert [event.json() for event in events] == [{"item": "tea"}]

Nothing here waits for ever: what does not come in time raises TimeoutError, which tells what did.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self, TypeAlias, overload

from flask import Flask
from flask.testing import EnvironBuilder, FlaskClient
from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app

from .apps import SSE
from .events.blocks import Blocks
from .events.markers import is_marker
from .events.model import HEARTBEAT, STREAM_END, format_id
from .extension import AppSSE
from .log import open_log
from .observe.environ import HUNG_UP

__all__ = [
    "Captured",
    "Published",
    "Received",
    "Stream",
    "StreamEnded",
    "captured",
    "in_memory",
    "open_stream",
    "stopping",
]

# Seconds that a test waits for something, unless it says how long.
TIMEOUT: Final = 5.0

# Seconds between two looks for an event that may come from another process.
_POLL: Final = 0.01
_PAGE: Final = 1000

Extended: TypeAlias = Flask | SSE | AppSSE
"""An app, or its extension; of an extension that serves several apps, the current app counts."""


def _part(of: Extended) -> AppSSE:
    if isinstance(of, AppSSE):
        return of
    part = of.extensions["sse"] if isinstance(of, Flask) else of.current
    assert isinstance(part, AppSSE)
    return part


# ── an app for one test ───────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def stopping(app: Flask) -> Iterator[Flask]:
    """Stop the app's SSE and Health at the end: their threads, streams, files and log."""
    try:
        yield app
    finally:
        for name in ("health", "sse"):  # health watches sse
            if name in app.extensions:
                app.extensions[name].stop()


@contextmanager
def in_memory(of: Extended) -> Iterator[None]:
    """Give an app an empty log in memory, whatever its SSE_LOG says, and stop the app's SSE at the end.

    For an app that is made when its module is imported; a factory can set ``SSE_LOG`` to ``memory:``.
    """
    part = _part(of)
    settings = part.settings
    part.stop()
    events, seconds = settings.sse_retain_events, settings.sse_retain_seconds
    part.use_log(open_log("memory:", retain_events=events, retain_seconds=seconds, options=vars(settings)))
    try:
        yield
    finally:
        part.stop()


# ── what was published ────────────────────────────────────────────────────────────────────────────────────────────────


class Published(NamedTuple):
    """An event in the log. event: its type, None if it has none."""

    id: str
    channel: str
    event: str | None
    data: str

    def json(self) -> Any:
        """Return the data, read as JSON. Raises ValueError."""
        return json.loads(self.data)


class Captured(Sequence[Published]):
    """The events that were published since :func:`captured` began, to its channels; after its end, those until then."""

    def __init__(self, part: AppSSE, channels: tuple[str, ...]) -> None:
        self._part = part
        self._channels = channels or None
        self._after = part.log.bounds().latest
        self._events: list[Published] = []
        self._frozen = False

    def _read(self) -> list[Published]:
        while not self._frozen:
            records = self._part.log.read(self._channels, self._after, _PAGE, 2**24)
            for record in records:
                self._after = record.position
                if not (is_marker(record.event) or record.channel.startswith("_")):
                    self._events.append(Published(format_id(record.position), *record[1:3], record.data))
            if not records:
                break
        return self._events

    def wait(self, count: int = 1, timeout: float = TIMEOUT) -> list[Published]:
        """Wait until there are at least ``count`` events, and return all of them.

        For code that publishes in a thread or another process. Raises TimeoutError.
        """
        deadline = time.monotonic() + timeout
        while len(events := self._read()) < count:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{len(events)} of {count} events were published within {timeout:g} s: {events!r}")
            time.sleep(_POLL)
        return list(events)

    def _freeze(self) -> None:
        self._read()
        self._frozen = True

    def __len__(self) -> int:
        return len(self._read())

    @overload
    def __getitem__(self, index: int) -> Published: ...
    @overload
    def __getitem__(self, index: slice) -> list[Published]: ...
    def __getitem__(self, index: int | slice) -> Published | list[Published]:
        return self._read()[index]

    def __repr__(self) -> str:
        return repr(self._read())


@contextmanager
def captured(of: Extended, *channels: str) -> Iterator[Captured]:
    """Capture what is published meanwhile. channels: names and patterns (``user:*``); all if none is given.

    The events are stored and delivered as ever. Raises LogUnavailable.
    """
    events = Captured(_part(of), channels)
    try:
        yield events
    finally:
        events._freeze()


# ── what a client receives ────────────────────────────────────────────────────────────────────────────────────────────


class Received(NamedTuple):
    """An event of a stream.

    id: the last one that came, as an EventSource has it; event: its type, None if it has none.
    """

    id: str | None
    event: str | None
    data: str

    def json(self) -> Any:
        """Return the data, read as JSON. Raises ValueError."""
        return json.loads(self.data)


class StreamEnded(Exception):
    """The stream has ended, and there is no further event."""


class Stream:
    """An open stream; see :func:`open_stream`.

    status, headers: the answer's. last_event_id: the id with which another stream would go on after what was read here.
    """

    status: int
    headers: Headers

    def __init__(self, client: FlaskClient, path: str, headers: Mapping[str, str], timeout: float) -> None:
        self.last_event_id: str | None = None
        self._newest: str | None = None  # the id of the newest block that came
        self._app = client.application
        self._path = path
        self._timeout = timeout
        self._blocks = Blocks()
        self._events: list[Received] = []
        self._seen = 0
        self._ended = False
        self._closed = threading.Event()
        # Pieces of the body; what the app raised; and at the end None.
        self._pieces: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._opened: queue.SimpleQueue[tuple[int, Headers] | BaseException] = queue.SimpleQueue()
        overrides = {HUNG_UP: self._closed.is_set}
        builder = EnvironBuilder(
            self._app, path, headers=Headers(headers), environ_base=client.environ_base, environ_overrides=overrides
        )
        environ = builder.get_environ()
        client._add_cookies_to_wsgi(environ)
        self._thread = threading.Thread(target=self._run, args=(environ,), name="sse-test-stream", daemon=True)
        self._thread.start()
        try:
            opened = self._opened.get(timeout=timeout)
        except queue.Empty:
            self._closed.set()
            raise TimeoutError(f"no answer from {path} within {timeout:g} s") from None
        if isinstance(opened, BaseException):
            raise opened
        self.status, self.headers = opened

    def _run(self, environ: dict[str, Any]) -> None:
        """In a thread of its own: be the server."""
        body: Any = None
        try:
            body, status, headers = run_wsgi_app(self._app, environ, buffered=False)
            self._opened.put((int(status.split()[0]), headers))
            for piece in body:
                self._pieces.put(piece)
                if self._closed.is_set():
                    break
        except BaseException as error:  # to be raised in the test
            self._opened.put(error)
            self._pieces.put(error)
        finally:
            if hasattr(body, "close"):
                body.close()
            self._pieces.put(None)

    def next(self, timeout: float | None = None) -> Received:
        """Return the next event; heartbeats are left out.

        timeout: seconds, that of :func:`open_stream` by default. Raises TimeoutError, StreamEnded, and what the app
        raised.
        """
        timeout = self._timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while not self._events:
            if self._ended:
                kind = self.headers.get("Content-Type", "")
                said = "" if kind.startswith("text/event-stream") else f": it answered {self.status}, {kind}"
                raise StreamEnded(f"{self._path} has ended after {self._seen} events{said}")
            try:
                piece = self._pieces.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                told = f"status {self.status}, {self._seen} events before"
                raise TimeoutError(f"no event from {self._path} within {timeout:g} s ({told})") from None
            if isinstance(piece, BaseException):
                raise piece
            self._ended = piece is None
            self._take_in(piece or b"")
        self._seen += 1
        event = self._events.pop(0)
        self.last_event_id = event.id
        return event

    def _take_in(self, piece: bytes) -> None:
        for block in self._blocks.feed(piece):
            self._newest = block.id or self._newest
            if block.data is not None and block.event not in (HEARTBEAT, STREAM_END):
                self._events.append(Received(self._newest, block.event, block.data))
            elif not self._events:
                self.last_event_id = self._newest

    def take(self, count: int, timeout: float | None = None) -> list[Received]:
        """Return the next ``count`` events; ``timeout`` is for each. Raises as :meth:`next`."""
        return [self.next(timeout) for _ in range(count)]

    def __iter__(self) -> Iterator[Received]:
        """Yield events until the stream ends. Raises TimeoutError if one takes too long."""
        while True:
            try:
                event = self.next()
            except StreamEnded:
                return
            yield event

    def close(self) -> None:
        """Leave, as a client does. Waits a moment for the app to notice; a view that waits for ever stays behind."""
        self._closed.set()
        part = self._app.extensions.get("sse")
        if isinstance(part, AppSSE):
            part.wake_streams()
        self._thread.join(self._timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_stream(
    client: FlaskClient,
    path: str,
    *,
    last_event_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Stream:
    """Open a stream with Flask's test client (its cookies count), and return it once it is open. Close it: ``with``.

    The app runs in a thread of its own, as under a server, so a stream can be read beside other requests.
    last_event_id: resume after this id; timeout: seconds to wait for the answer, and for each event.

    Raises TimeoutError, and what the app raised.
    """
    resume = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    return Stream(client, path, {**(headers or {}), **resume}, timeout)
