"""``sse.response(iterable)``: a view's own generator as an event stream (LLM tokens, the progress of a job).

The iterable runs in its own greenlet or thread, because a silent generator cannot send heartbeats. It is at most one
item ahead of the client. The response's generator passes items on, sends a comment after ``SSE_HEARTBEAT`` of silence,
and notices between items that the client has left or that the worker drains.

At the iterable's end it sends an event ``stream-end``. A client has to close its EventSource then, which otherwise
comes back after ``retry:`` and starts the view again.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Final

from ..events.items import Item, as_message
from ..events.model import STREAM_END
from ..events.wire import comment_block, encode_block, retry_block
from ..runtime.cooperation import spawn
from ..runtime.iterables import close_iterable
from ..streams.pull import HANG_UP_CHECK
from ..streams.stream import CloseReason, spread_retry

logger = logging.getLogger("headwater.response")

# no-transform keeps a proxy from compressing, which would hold events back (RFC 9111 §5.2.2.6).
# X-Accel-Buffering makes nginx pass each event on at once.
STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}


_DONE: Final = object()
_END: Final = encode_block("{}", event=STREAM_END)


def encode_item(item: Item) -> bytes:
    """Encode an item of an iterable. Raises TypeError for what is none, InvalidEvent for an invalid field."""
    message = as_message(item)
    return encode_block(message.data, event=message.event, id=message.id, retry=message.retry)


class Pump:
    """Runs the iterable beside the response. Holds at most one item, so a slow client slows the iterable down."""

    def __init__(self, iterable: Iterable[Item], run: Callable[[Callable[[], None]], None]) -> None:
        self._iterable = iterable
        self._changed = threading.Condition()
        self._slot: list[Any] = []
        self._closed = False
        self._begun = False
        self.error: BaseException | None = None
        work = partial(run, self._work)
        self._greenlet = spawn(work, "sse-response")

    def _work(self) -> None:
        iterator: Any = None
        self._begun = True
        try:
            iterator = iter(self._iterable)
            for item in iterator:
                if not self._put(item):
                    break
        except BaseException as error:
            # gevent's Timeout and asyncio's CancelledError are errors of the iterable, too.
            if not self._closed:  # else it is the GreenletExit of close()
                self.error = error
        finally:
            # A client library's stream is often an iterable that must be closed, not only its iterator.
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
        """Return the next item, ``_DONE``, or None if there is none within ``timeout`` seconds."""
        with self._changed:
            if not self._slot:
                self._changed.wait(timeout)
            if not self._slot:
                return None
            item = self._slot.pop()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Stop the iterable: at its next item, or under gevent where it waits (GreenletExit)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._greenlet is not None:
            if not self._begun:
                close_iterable(self._iterable)  # a greenlet that is killed before it starts never runs
            self._greenlet.kill(block=False)


class Body:
    """The response's body: :func:`respond`'s generator. Closes the iterable even if the generator never starts.

    It never starts for HEAD, or if a hook of the app raises or replaces the response. Then nobody calls ``close``, so
    ``__del__`` does.
    """

    def __init__(self, iterable: Iterable[Item], **options: Any) -> None:
        self._iterable = iterable
        self._chunks = respond(iterable, **options)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """End the response now. Idempotent."""
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
    on_close: Callable[[CloseReason, int, int], None],
    on_open: Callable[[], None] = lambda: None,
    why_lost: Callable[[], CloseReason] = lambda: CloseReason.CLIENT,
) -> Generator[bytes]:
    """Yield the body's chunks.

    run: calls its argument within the request's context; heartbeat: seconds of silence before a comment, 0 for never;
    hung_up: tells whether the client has left, None if the server cannot tell; should_end: tells whether the drain is
    over; on_open: called before the first chunk; on_close: called once afterwards, with reason, events and bytes;
    why_lost: returns the reason if the response is closed early.
    """
    on_open()
    pump = Pump(iterable, run)
    events = size = 0
    reason = CloseReason.CLIENT
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
                    reason = CloseReason.ERROR
                    logger.error("a response's iterable raised after %d events", events, exc_info=pump.error)
                    # Only the log tells why, because the text may contain secrets.
                    yield encode_block('{"title":"the stream ended by an error"}', event="error")
                else:
                    reason = CloseReason.DONE
                size += len(_END)
                yield _END
                return
            if item is not None:
                try:
                    wire = encode_item(item)
                except (TypeError, ValueError) as error:
                    pump.error = error
                    reason = CloseReason.ERROR
                    logger.error("a response's iterable yielded something that is not an event: %s", error)
                    yield encode_block('{"title":"the stream ended by an error"}', event="error")
                    yield _END
                    return
                yield wire
                events += 1
                size += len(wire)
                spoke = time.monotonic()
            elif hung_up is not None and hung_up():
                reason = why_lost()
                return
            if should_end():
                reason = CloseReason.DRAIN
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
