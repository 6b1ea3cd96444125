"""Free TCP ports that stay free until the server under test has bound them, and across its restarts."""

from __future__ import annotations

import socket


class ReservedPort:
    """A port of 127.0.0.1, held by a socket that is bound and never listens.

    With SO_REUSEADDR on both sides Linux lets a server bind and listen beside it, but gives the number neither to ``bind``
    on port 0 nor to an outgoing connection. So the port stays ours.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind((host, 0))
        self.number: int = self._holder.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._holder.close()
