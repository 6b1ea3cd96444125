"""``SSEWorker``: gunicorn's gevent worker with Go's time-outs, the takeover of streams, and a drain that loses nothing.

Theory of operation.

*Listeners.* Each has a pool of its own (``worker_connections``), so a full pool starves no other listener. The pool
bounds connections that are being read or answered. A stream that was taken over has left it; SSE_MAX_STREAMS bounds
those.

*Life of a worker.* Signals move it on:

    serving    until SIGTERM (drain), SIGQUIT or SIGINT (hurried drain), or until gunicorn's master is gone
    delaying   for SSE_DRAIN_DELAY: readiness fails, but the worker still accepts and serves everything, because
               Kubernetes removes endpoints with a delay. A new stream gets 200, its opening and a clean end.
    ending     the main listeners are closed; streams end one by one over SSE_DRAIN_WINDOW, and requests in flight
               finish. Health still answers.
    gone       when nothing is left, or the window and a margin are over

Only SIGQUIT and SIGINT (Ctrl-C) hurry a drain: everything left ends now. A repeated SIGTERM changes nothing: dumb-init,
``tini -g`` and systemd signal the master and its workers, the master signals the workers again, and after SIGTTOU it
does so each second. After a reload (SIGHUP) the new workers accept on the same sockets, which ends an old one's delay.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import metadata
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import wait_read
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from .. import registry
from ..extension import AppSSE
from ..fanout import Fanout
from ..gunicorn import starting, tell_listening
from ..runtime.cooperation import settle_collector
from ..runtime.failures import Failures
from ..settings import Settings
from ..settings.watch import Watch
from ..streams.hub import Hub
from ..streams.stats import Stats
from ..streams.stream import Stream
from ..web.servers import refuse_company
from .answer import answer
from .connection import Connection
from .deadlines import ConnState
from .drain import drain
from .head_memory import HeadMemory
from .parser import CachedConfig
from .reader import HeaderTimeout

# Connections accepted before other work runs. gevent's default is 100: when a crowd reconnects, a probe would wait more
# than a second until all of those are served.
ACCEPTS_PER_TURN = 4
# A full pool closes this share of the idle connections, oldest first, to make room.
EVICT_SHARE = 0.1


class SSEWorker(GeventWorker):
    """``worker_class = "sse.worker.SSEWorker"`` in gunicorn's configuration."""

    takes_blocked_signals = True
    # This class starts the extensions itself; the hook of sse/gunicorn.py must not.
    adopts = True
    # Shared by the master and its workers. 1: a worker's log is in its memory, so there must be no second worker.
    _alone: Final = mmap.mmap(-1, 1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draining = False
        self.hurried = False
        # Returns whether, after a reload, the new workers run. Set in gunicorn.conf.py: sse does not know health.
        self.replaced: Callable[[], bool] = lambda: False
        self.health_names: frozenset[Any] = frozenset()  # addresses of health's listeners
        self.mount = os.environ.get("SCRIPT_NAME", "")
        self._unwanted = self._is_one_too_many()
        self.extensions: list[AppSSE] = []
        self._woken: Event | None = None
        self._tls: ssl.SSLContext | None = None
        self.takes_over = not self.cfg.is_ssl  # TLS needs the Python socket
        self.connections: set[Connection] = set()
        self.failures = Failures(self.log)
        self.fanouts: dict[Hub, Fanout] = {}

    def patch(self) -> None:
        """Apply gevent's patches. Search every package's metadata for gevent's plugins only once."""
        found = metadata.entry_points()
        look = metadata.entry_points
        metadata.entry_points = found.select
        try:
            super().patch()
        finally:
            metadata.entry_points = look

    # ── start ─────────────────────────────────────────────────────────────────────────────────────────────

    def _is_one_too_many(self) -> bool:
        """In the master, before the fork: undo a SIGTTIN that asks for a second worker beside a log in memory.

        The master goes back to its former number of workers, and ends the oldest one: this one, because of its age."""
        master = getattr(signal.getsignal(signal.SIGTTIN), "__self__", None)
        self._additional = master is not None and master.num_workers > self.cfg.workers
        if master is None or not (self._alone[0] and self._additional):
            return False
        self.log.error("SIGTTIN is ignored: SSE_LOG=memory: allows one worker, because each would have its own log")
        master.num_workers = self.cfg.workers
        self.age = -1
        return True

    def init_process(self) -> None:
        """Run the worker's whole life."""
        if self._unwanted:
            sys.exit(0)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the app, and open its log before the first request: a log that cannot be opened ends the start."""
        with starting(self):
            super().load_wsgi()
            self._load()

    def _load(self) -> None:
        """Start everything that needs the app."""
        settle_collector()
        self.request_cfg = CachedConfig(self.cfg)
        self._heads = HeadMemory(self.request_cfg)
        self.health_names = tell_listening(self.wsgi, self.sockets)
        if self.cfg.max_requests and self.age == 1:
            self.log.warning(
                "max_requests=%d is ignored: a worker that is replaced stops accepting until its last stream has ended",
                self.cfg.max_requests,
            )
        registry.follow(self._adopt)
        if not self.extensions:
            # An app without our extension: its connections still have our time-outs.
            self.settings, self._stats = Settings.from_environ(), Stats()
            Watch(self.settings).start()

    def _adopt(self, sse: AppSSE) -> None:
        """Serve an extension of this process. Raises LogRefused, LogUnavailable."""
        self.health_names |= tell_listening(sse.app, self.sockets)
        refuse_company(sse.settings.sse_log)
        self._alone[0] = not sse.log.shared
        if self._alone[0] and self._additional:
            sys.exit(0)  # the master forked this worker before another one could set _alone; it forks no more now
        if not self.extensions:
            self.settings, self._stats = sse.settings, sse.stats  # connections use the first extension's
        self.extensions.append(sse)
        self._fanout(sse.start(self._connection_counts))

    def _fanout(self, hub: Hub) -> Fanout:
        if (fanout := self.fanouts.get(hub)) is None:
            fanout = self.fanouts[hub] = Fanout(hub)
            fanout.start()
        return fanout

    def _take_over(self, hub: Hub, stream: Stream, sock: Any) -> None:
        self._fanout(hub).adopt(stream, sock.detach())

    def run(self) -> None:
        """The worker's main loop."""
        self._woken = Event()
        if self.cfg.is_ssl:
            self._tls = ssl_context(self.cfg)
            self.log.info("TLS on the listeners: streams keep their greenlets (no takeover)")
        servers = [self._serve(sock) for sock in self.sockets]
        gevent.spawn(self._watch_signals)
        while self.alive:
            self.notify()
            try:
                if self._heads.forget():
                    for connection in self.connections:
                        connection.forget()
                self._evict(servers)
            except Exception:
                self.failures.report("upkeep of the worker's connections failed; it goes on")
            self._woken.wait(1.0)
        drain(self, servers)

    def _serve(self, sock: Any) -> StreamServer:
        sock.setblocking(True)
        pool = Pool(self.worker_connections)
        # Its address, not the socket: the drain may close that before the greenlet of a new connection first runs.
        server = StreamServer(sock, handle=partial(self.handle, sock.getsockname()), spawn=pool)
        # With several workers, leave the others their share.
        server.max_accept = 1 if self.cfg.workers > 1 else ACCEPTS_PER_TURN
        server.start()
        return server

    def _evict(self, servers: list[StreamServer]) -> None:
        if all(server.pool.free_count() for server in servers):
            return
        idle = sorted((c for c in self.connections if c.state is ConnState.IDLE), key=lambda c: c.opened)
        for connection in idle[: max(1, int(len(idle) * EVICT_SHARE))]:
            self._stats.connections_closed["evicted"] += 1
            connection.hang_up()

    # ── signals ───────────────────────────────────────────────────────────────────────────────────────────

    def _watch_signals(self) -> None:
        """Let signal handlers run at once: gunicorn's wake-up pipe wakes gevent's loop, and then Python runs them."""
        while True:
            wait_read(self.PIPE[0])
            with suppress(BlockingIOError):
                os.read(self.PIPE[0], 512)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: drain. A repeated one changes nothing."""
        self._leave()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGQUIT, SIGINT: drain now, or hurry the drain that is under way."""
        self.hurried = True
        self._leave()

    def _leave(self) -> None:
        self.alive = False
        self.draining = True
        for hub in self.fanouts:
            hub.admission.drain()
        if self._woken is not None:
            self._woken.set()

    def init_signals(self) -> None:
        """Install our handlers; then unblock the signals that the fork blocked (:func:`sse.gunicorn.when_ready`)."""
        super().init_signals()
        signal.siginterrupt(signal.SIGQUIT, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT))

    def notify(self) -> None:
        """Tell the master that the event loop runs; leave if the master is gone."""
        self.tmp.notify()
        if self.ppid != os.getppid():
            self.log.warning("gunicorn's master is gone; this worker ends")
            self.hurried = True
            self._leave()

    def _connection_counts(self) -> dict[str, int]:
        """Return the main listeners' connections by state, as in Go's ``ConnState``, with zeros."""
        counts: dict[str, int] = {ConnState.NEW: 0, ConnState.ACTIVE: 0, ConnState.IDLE: 0}
        for connection in self.connections:
            if connection.state in counts and not self.for_health(connection):
                counts[connection.state] += 1
        counts[ConnState.STREAM] = sum(fanout.busy() for fanout in self.fanouts.values())
        return counts

    def is_health(self, server: StreamServer) -> bool:
        """Return whether this listener is health's."""
        return server.socket.getsockname() in self.health_names

    def for_health(self, connection: Connection) -> bool:
        """Return whether the connection was accepted by health's listener."""
        return connection.listener in self.health_names

    # ── connections ───────────────────────────────────────────────────────────────────────────────────────

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection, from accept to close or takeover. listener: its listener's address."""
        # A Unix peer chooses the name of its own end, which could look like an address.
        addr = addr if isinstance(addr, tuple) else ""
        connection = Connection(client, addr, self.settings, lambda: self.draining, self._take_over, listener)
        self.connections.add(connection)
        stats = self._stats
        request, reason = None, "bad-request"

        def answer_one(req: Any) -> bool:
            nonlocal request, reason
            request, reason = req, "error"
            keep = answer(self, connection, req)
            reason = "bad-request"
            return keep

        def count(reason: str) -> None:
            stats.connections_closed[reason] += 1

        try:
            if self._tls is not None:
                # gevent's server would wait for the handshake for ever.
                connection.sock = client = self._tls.wrap_socket(client, True, do_handshake_on_connect=False)
                client.settimeout(connection.header_time_left())
                try:
                    client.do_handshake()
                except TimeoutError:
                    raise HeaderTimeout from None
            connection.requests(self.request_cfg, answer_one, count, self._heads)
        except HeaderTimeout:
            count("read-header-timeout")
        except gevent.GreenletExit:
            pass
        except TimeoutError:
            count("write-timeout")
        except ssl.SSLError as error:
            self.log.debug("TLS error: %s", error)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF):
                self.log.exception("socket error")
        except Exception as error:
            # The parser refused the request, or the app let an exception escape before the head was sent: also a 408
            # for a late body, if the app has no answer to it. If the body was cut off, the client is gone.
            if connection.broken != "client":
                count(connection.broken or reason)
            connection.broken = connection.broken or reason
            client.settimeout(1.0)
            self.handle_error(request, client, addr, error)
        finally:
            self.connections.discard(connection)
            if connection.state is not ConnState.STREAM:
                connection.finish()
