"""A server that answers by a script, for clients that must cope with any server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Script = Callable[[socket.socket], None]


class ScriptedServer:
    """Accepts one connection after the other, reads a request, lets the script answer, and hangs up."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.script: Script = lambda connection: None
        self.requests: list[bytes] = []
        #: set when the test is over, so that a waiting script ends
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="scripted server")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                if self.over.is_set():
                    return
                connection.settimeout(5)
                with contextlib.suppress(OSError):  # the client has seen enough
                    self.requests.append(connection.recv(65536))
                    self.script(connection)

    def close(self) -> None:
        self.over.set()
        with socket.create_connection(self.listener.getsockname()):
            self._thread.join(5)
        self.listener.close()
        assert not self._thread.is_alive()
