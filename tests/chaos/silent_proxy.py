"""A network that drops everything silently: a TCP proxy that stops forwarding and closes nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class SilentProxy:
    """Forwards connections from a free port of 127.0.0.1 to ``target``. Use it as a context manager.

    :param target: a port of 127.0.0.1; a change applies to new connections (a Service that points to another pod).
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()

    def silence(self) -> None:
        """Forward nothing from now on, not even the end of a connection. The kernel accepts new connections, which get
        nothing either."""
        self._flowing.clear()

    def speak(self) -> None:
        """Forward again, first what was sent meanwhile, as TCP would."""
        self._flowing.set()

    def sever(self) -> None:
        """Cut every connection."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            _shut(*pair)

    def close(self) -> None:
        self._closed = True
        _shut(self._listener)  # ends a waiting accept
        self.sever()  # before it speaks again, so that what was held back is dropped
        self._flowing.set()
        self._listener.close()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name=f"proxy {self.port}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._flowing.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            with self._lock:
                self._pairs.add((near, far))
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()
            with self._lock:
                self._pairs.discard((near, far))

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                self._flowing.wait()
                sink.sendall(piece)
            self._flowing.wait()
            sink.shutdown(socket.SHUT_WR)
            return
        _shut(source, sink)


def _shut(*sockets: socket.socket) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
