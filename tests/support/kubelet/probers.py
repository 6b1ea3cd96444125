"""The probes, over real sockets and processes, as the kubelet makes them.

Each HTTP probe is a connection of its own with ``Connection: close``; its time-out covers everything from connecting to
the end of the body, of which it reads 10 KB at most (``pkg/probe/http``: maxRespBodyLength, DisableKeepAlives).

A probe can *fail* or *error*. An error up to the end of the head is a failure. After one in the body the probe *errored*
(DoHTTPProbe returns it as err): it is tried three times (``pkg/kubelet/prober/prober.go``: maxProbeRetries), then the
result is discarded (``worker.go``: "Prober error, throw away the result"). So a probe aimed at a stream never succeeds,
and fails only until the stream has sent its head.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from tests.support.kubelet.core import Outcome
from tests.support.kubelet.specs import Action, Exec, HttpGet, TcpSocket

MAX_BODY_BYTES: Final = 10 * 1024
MAX_REDIRECTS: Final = 10
MAX_PROBE_RETRIES: Final = 3
POD_IP: Final = "127.0.0.1"


class Result(NamedTuple):
    """An outcome, and the event's message about it."""

    outcome: Outcome
    message: str = ""


def run_probe(action: Action, timeout: float, *, env: Mapping[str, str], cwd: Path) -> Result:
    """Run one probe; each try takes ``timeout`` s at most. env, cwd: the container's, for exec."""
    for _ in range(MAX_PROBE_RETRIES):
        result = try_probe(action, timeout, env=env, cwd=cwd)
        if result.outcome is not Outcome.UNKNOWN:
            break
    return result


def try_probe(action: Action, timeout: float, *, env: Mapping[str, str], cwd: Path) -> Result:
    if isinstance(action, HttpGet):
        return http_probe(action, timeout)
    if isinstance(action, TcpSocket):
        return tcp_probe(action, timeout)
    return exec_probe(action, timeout, env, cwd)


# ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────


class _DeadlineReader(io.RawIOBase):
    """A socket's bytes, with one deadline for all reads."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def http_probe(action: HttpGet, timeout: float) -> Result:
    """CP "HTTP probes"."""
    deadline = time.monotonic() + timeout
    path = action.path
    for _ in range(MAX_REDIRECTS + 1):
        url = f"http://{POD_IP}:{action.port}{path}"
        in_body = False
        try:
            with socket.create_connection((POD_IP, action.port), max(deadline - time.monotonic(), 0.001)) as sock:
                sock.sendall(_request(action, path))
                response = http.client.HTTPResponse(_DeadlineReader(sock, deadline))  # type: ignore[arg-type]
                with contextlib.closing(response):
                    response.begin()
                    in_body = True
                    body = response.read(MAX_BODY_BYTES)
                    if response.length and len(body) < MAX_BODY_BYTES:
                        raise http.client.IncompleteRead(body, response.length)
                    status, location = response.status, response.headers.get("Location")
        except TimeoutError:
            if in_body:
                text = "context deadline exceeded (Client.Timeout or context cancellation while reading body)"
                return Result(Outcome.UNKNOWN, f"resulted in failure state: {text}")
            text = f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
            return Result(Outcome.FAILURE, text)
        except ConnectionRefusedError:
            text = f'Get "{url}": dial tcp {POD_IP}:{action.port}: connect: connection refused'
            return Result(Outcome.FAILURE, text)
        except (OSError, http.client.HTTPException) as error:
            if in_body:
                return Result(Outcome.UNKNOWN, f"resulted in failure state: {type(error).__name__}: {error}")
            return Result(Outcome.FAILURE, f'Get "{url}": {type(error).__name__}: {error}')
        if 300 <= status < 400 and location:
            target = urlsplit(urljoin(url, location))
            # CP "HTTP probes", note: only redirects to the same host are followed; another host is a warning, and a
            # warning is a success.
            if target.hostname != POD_IP or target.port != action.port:
                return Result(Outcome.SUCCESS, "Probe terminated redirects")
            path = target.path + (f"?{target.query}" if target.query else "")
            continue
        if 200 <= status < 400:
            return Result(Outcome.SUCCESS)
        return Result(Outcome.FAILURE, f"HTTP probe failed with statuscode: {status}")
    return Result(Outcome.SUCCESS, "Probe terminated redirects")


def _request(action: HttpGet, path: str) -> bytes:
    # CP "HTTP probes": User-Agent and Accept are sent by default; a header with an empty value removes them.
    headers = {"Host": f"{POD_IP}:{action.port}", "User-Agent": "kube-probe/1.34", "Accept": "*/*"}
    headers |= dict(action.headers)
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join((f"GET {path} HTTP/1.1", *lines, "Connection: close", "", "")).encode("latin-1")


# ── TCP and exec ──────────────────────────────────────────────────────────────────────────────────────────


def tcp_probe(action: TcpSocket, timeout: float) -> Result:
    """CP "Define a TCP liveness probe"."""
    try:
        socket.create_connection((POD_IP, action.port), timeout).close()
    except TimeoutError:
        return Result(Outcome.FAILURE, f"dial tcp {POD_IP}:{action.port}: i/o timeout")
    except OSError as error:
        text = f"dial tcp {POD_IP}:{action.port}: connect: {(error.strerror or str(error)).lower()}"
        return Result(Outcome.FAILURE, text)
    return Result(Outcome.SUCCESS)


def exec_probe(action: Exec, timeout: float, env: Mapping[str, str], cwd: Path) -> Result:
    """CP "Define a liveness command". Its output, 10 KB at most, becomes the event's message."""
    try:
        process = subprocess.Popen(
            action.command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        # Kubelet: "Probe errored": the result is discarded (worker.go).
        return Result(Outcome.UNKNOWN, f"resulted in unknown state: rpc error: failed to exec in container: {error}")
    with process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Result(Outcome.FAILURE, f"command timed out: {' '.join(action.command)} after {timeout:g}s")
    message = output[:MAX_BODY_BYTES].decode(errors="replace").strip()
    return Result(Outcome.SUCCESS if process.returncode == 0 else Outcome.FAILURE, message)
