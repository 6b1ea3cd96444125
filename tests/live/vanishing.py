"""A client in a network namespace of its own, at the end of a cable (veth) that can be cut: no FIN, no RST.

The namespace belongs to the client's process and goes with it, and the cable with the namespace: whatever becomes of
the tests, nothing of it stays. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from types import TracebackType
from typing import Self

import pytest

_CLIENT = """
import socket, sys
print("ready", flush=True)
for line in sys.stdin:
    host, port, target = line.split()
    sock = socket.create_connection((host, int(port)), timeout=5)
    sock.sendall(f"GET {target} HTTP/1.1\\r\\nHost: far\\r\\n\\r\\n".encode())
    assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    print("streaming", flush=True)
"""


class FarClient:
    """A context manager. Call :meth:`stream`, then :meth:`vanish`."""

    def __init__(self) -> None:
        number = os.getpid() % 16384
        self._cable = f"hw{number}"
        network = f"10.213.{number // 64}.{number % 64 * 4}"
        base, _, last = network.rpartition(".")
        self.near_address = f"{base}.{int(last) + 1}"
        self._far_address = f"{base}.{int(last) + 2}"
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def or_skip(cls) -> Self:
        """Return a client, or skip the test if this machine allows none."""
        if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare") or not shutil.which("nsenter"):
            pytest.skip("a peer that vanishes needs root, iproute2 and util-linux")
        return cls()

    def __enter__(self) -> Self:
        command = ["unshare", "--net", sys.executable, "-c", _CLIENT]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert self._line() == "ready"
            pid = self._process.pid
            self._ip("link", "add", self._cable, "type", "veth", "peer", "name", "far0", "netns", f"{pid}")
            self._ip("address", "add", f"{self.near_address}/30", "dev", self._cable)
            self._ip("link", "set", self._cable, "up")
            self._far_ip("address", "add", f"{self._far_address}/30", "dev", "far0")
            self._far_ip("link", "set", "far0", "up")
        except subprocess.CalledProcessError as error:
            self.close()
            pytest.skip(f"no network namespaces here: {error.stderr}")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the client; the kernel then removes its namespace and the cable."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            with contextlib.suppress(subprocess.CalledProcessError):
                self._ip("link", "delete", self._cable)

    def stream(self, port: int, target: str) -> None:
        """Open a stream from the other end and wait for its beginning."""
        assert self._process is not None and self._process.stdin is not None
        print(self.near_address, port, target, file=self._process.stdin, flush=True)
        assert self._line() == "streaming"

    def vanish(self) -> None:
        """Cut the cable at the far end."""
        self._far_ip("link", "set", "far0", "down")

    def _line(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)

    def _far_ip(self, *words: str) -> None:
        assert self._process is not None
        command = ["nsenter", "--target", f"{self._process.pid}", "--net", "ip", *words]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
