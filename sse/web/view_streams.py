"""``sse.response(iterable)``: a view's own generator as an event stream (LLM tokens, the progress of a job).

The iterable runs in a greenlet or thread of its own, one item ahead of the client at most, because a generator that
is silent cannot be asked for a heartbeat. The response's generator hands items on, sends a comment when the iterable
has been silent for a heartbeat's time, and notices between items that the client has gone or the worker drains.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from ..events.model import comment_block, encode_block, retry_block
from ..runtime.cooperation import cooperative
from ..streams.stream import spread_retry

logger = logging.getLogger("headwater.response")

# How often a silent stream looks whether its client is still there, where the worker can tell. Seconds.
HANG_UP_CHECK = 0.5

# no-transform: a proxy that compresses would hold events back until its window is full (RFC 9111 §5.2.2.6).
# X-Accel-Buffering: nginx passes each event on at once.
STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}


class Message(NamedTuple):
    """One event of a view's own stream. ``retry`` in milliseconds. An ``id`` is the app's own business: what a client
    sends back as Last-Event-ID is the view's to interpret."""

    data: str
    event: str | None = None
    id: str | None = None
    retry: int | None = None


Item = str | Message | Mapping[str, Any]

_DONE: Final = object()


def encode_item(item: Item) -> bytes:
    """The wire form of what an iterable yields: a string is data; a mapping has the fields of :class:`Message`.
    Raises TypeError for anything else, InvalidEvent for what a field must not contain."""
    if isinstance(item, str):
        return encode_block(item)
    if isinstance(item, Message):
        return encode_block(item.data, event=item.event, id=item.id, retry=item.retry)
    if isinstance(item, Mapping):
        unknown = set(item) - set(Message._fields)
        if unknown:
            raise TypeError(f"an event's fields are {', '.join(Message._fields)}, not {sorted(unknown)!r}")
        return encode_item(Message(**{"data": "", **item}))
    raise TypeError(f"an event is a str, a sse.Message or a mapping with its fields, not {type(item).__name__}")


def close_iterable(iterable: Any) -> None:
    """Close it if it can be closed; what that raises is logged."""
    close = getattr(iterable, "close", None)
    try:
        if close is not None:
            close()
    except Exception:
        logger.exception("closing a response's iterable failed")


class Pump:
    """Runs the iterable beside the response; holds one item at most, so a slow client slows the iterable down."""

    def __init__(self, iterable: Iterable[Item], run: Callable[[Callable[[], None]], None]) -> None:
        self._iterable = iterable
        self._changed = threading.Condition()
        self._slot: list[Any] = []
        self._closed = False
        self._begun = False
        self.error: BaseException | None = None
        work = partial(run, self._work)
        if cooperative():
            import gevent

            self._greenlet = gevent.spawn(work)
        else:
            self._greenlet = None
            threading.Thread(target=work, name="sse-response", daemon=True).start()

    def _work(self) -> None:
        iterator: Any = None
        self._begun = True
        try:
            iterator = iter(self._iterable)
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:
            # BaseException: gevent's Timeout and asyncio's CancelledError are errors of the iterable, too. When it was
            # closed, what ends it is our own doing.
            if not self._closed:
                self.error = error
        finally:
            # A client library's stream is often an iterable that is to be closed itself.
            close_iterable(iterator)
            if iterator is not self._iterable:
                close_iterable(self._iterable)
            self._put(_DONE)

    def _put(self, item: Any) -> bool:
        with self._changed:
            while self._slot and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._slot.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout: float) -> Any:
        """The next item, ``_DONE``, or None when there is none within ``timeout`` seconds."""
        with self._changed:
            if not self._slot:
                self._changed.wait(timeout)
            if not self._slot:
                return None
            item = self._slot.pop()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Stop the iterable: at its next item; under gevent right where it waits (GreenletExit)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._greenlet is not None:
            if not self._begun:
                close_iterable(self._iterable)  # a greenlet that is killed before its first turn has none
            self._greenlet.kill(block=False)


class Body:
    """The body of the response: :func:`respond`'s generator, which closes the iterable even if it never begins (a HEAD
    request; a hook of the app's that replaced the response, or raised: then nobody closes the body, it is dropped)."""

    def __init__(self, iterable: Iterable[Item], **options: Any) -> None:
        self._iterable = iterable
        self._chunks = respond(iterable, **options)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """End the response where it is. Idempotent."""
        begun = inspect.getgeneratorstate(self._chunks) != inspect.GEN_CREATED
        self._chunks.close()
        iterable, self._iterable = self._iterable, ()
        if not begun:
            close_iterable(iterable)

    def __del__(self) -> None:
        self.close()


def respond(
    iterable: Iterable[Item],
    *,
    run: Callable[[Callable[[], None]], None],
    heartbeat: float,
    retry_ms: int,
    hung_up: Callable[[], bool] | None,
    should_end: Callable[[], bool],
    on_close: Callable[[str, int, int], None],
    on_open: Callable[[], None] = lambda: None,
    why_lost: Callable[[], str] = lambda: "client",
) -> Generator[bytes]:
    """The body's chunks.

    run: calls what the iterable runs in (with the request's context); heartbeat: seconds of silence before a comment,
    0 = never; hung_up: can tell that the client has gone, None where nobody can; should_end: the worker is at the
    end of its drain; on_open: called before the first chunk; on_close: called once after that, with reason, events and
    bytes; why_lost: the reason of a response that is closed in the middle.
    """
    on_open()
    pump = Pump(iterable, run)
    events = size = 0
    reason = "client"
    look = HANG_UP_CHECK if hung_up is not None else 1.0
    spoke = time.monotonic()
    try:
        opening = comment_block("open")
        size += len(opening)
        yield opening
        while True:
            item = pump.get(min(look, heartbeat) if heartbeat else look)
            if item is _DONE:
                if pump.error is not None:
                    reason = "error"
                    logger.error("a response's iterable raised after %d events", events, exc_info=pump.error)
                    # What went wrong is the log's business: its text may hold what no client should see.
                    yield encode_block('{"title":"the stream ended by an error"}', event="error")
                else:
                    reason = "done"
                return
            if item is not None:
                try:
                    wire = encode_item(item)
                except (TypeError, ValueError) as error:
                    pump.error = error
                    reason = "error"
                    logger.error("a response's iterable yielded what is no event: %s", error)
                    yield encode_block('{"title":"the stream ended by an error"}', event="error")
                    return
                yield wire
                events += 1
                size += len(wire)
                spoke = time.monotonic()
            elif hung_up is not None and hung_up():
                reason = why_lost()
                return
            if should_end():
                reason = "drain"
                yield retry_block(spread_retry(retry_ms))
                return
            if heartbeat and time.monotonic() - spoke >= heartbeat:
                yield comment_block("heartbeat")
                spoke = time.monotonic()
    except GeneratorExit:
        reason = why_lost()
        raise
    finally:
        pump.close()
        on_close(reason, events, size)
