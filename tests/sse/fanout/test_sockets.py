"""The table of sockets that were taken over."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from sse.fanout import Fanout
from sse.fanout.epoll import NOT_SENT_LIMIT_BYTES, USER_TIMEOUT_FACTOR
from sse.streams.group import Subscription
from sse.streams.stream import Stream
from tests.sse.worker_parts import Parts


def test_a_changed_write_timeout_reaches_the_kernel_for_open_sockets(closing: ExitStack) -> None:
    parts = Parts("memory:", SSE_WRITE_TIMEOUT=10)
    closing.callback(parts.log.close)
    sockets = Fanout(parts.hub).sockets
    closing.callback(sockets.poller.close)
    listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
    closing.enter_context(socket.create_connection(listener.getsockname()))
    ours = closing.enter_context(listener.accept()[0])
    group = parts.hub.join(Subscription(frozenset({"a"})))
    now = time.monotonic()
    sockets.add(Stream(group, 0, now=now, ends_at=now + 60, client="-", chunked=True), ours.fileno())

    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), (
        "an event would wait for the answer to the one before"
    )
    assert ours.getsockopt(socket.IPPROTO_TCP, 25) == NOT_SENT_LIMIT_BYTES  # TCP_NOTSENT_LOWAT

    def user_timeout() -> float:
        return ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000

    assert user_timeout() == 10 * USER_TIMEOUT_FACTOR
    parts.change(SSE_WRITE_TIMEOUT=20)
    assert user_timeout() == 20 * USER_TIMEOUT_FACTOR
    parts.change(SSE_WRITE_TIMEOUT=0)
    assert user_timeout() == 0
