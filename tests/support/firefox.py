"""Debian's Firefox, driven over Marionette: the protocol under geckodriver, which Firefox speaks on a TCP port of its own.

A message is its length in bytes, a colon, and a JSON list: ``[0, number, command, parameters]`` one way,
``[1, number, error, result]`` back. Nothing but Firefox itself is needed for it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.browser import SCREENSHOTS
from tests.support.programs import require_program
from tests.support.wait import eventually

# Seconds to wait for the start or an answer, on a machine with two cores that also runs other tests.
START, ANSWER = 60.0, 30.0

# Marionette itself disables updates, reports and background requests.
PREFERENCES = """
user_pref("marionette.port", 0);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("security.sandbox.content.level", 0);
"""


class FirefoxError(AssertionError):
    """Firefox answered with an error."""


class FirefoxPage:
    """The one tab of a Firefox, with Playwright's ``goto`` and ``evaluate``."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._numbers = count(1)
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._reader.close()
            self._socket.close()

    def goto(self, url: str) -> None:
        """Load a page, and wait until it is complete."""
        self._command("WebDriver:Navigate", {"url": url})

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Evaluate an expression, or call a function with the argument. Raises FirefoxError.

        It sees the page's globals, without its content security policy. What it sets in ``window`` stays until the next
        page; ``globalThis`` is not the window here.
        """
        body = f"const it = ({script}); return typeof it === 'function' ? it(arguments[0]) : it;"
        parameters = {"script": body, "args": [argument]}
        return self._command("WebDriver:ExecuteScript", parameters)["value"]

    def resize(self, width: int, height: int) -> None:
        """Make the window as large as this, in pixels; Firefox has a least width."""
        self._command("WebDriver:SetWindowRect", {"width": width, "height": height})

    def screenshot(self, name: str) -> None:
        """Save a picture of the whole page in build/screenshots, for CI's artefacts."""
        encoded = self._command("WebDriver:TakeScreenshot", {"full": True})["value"]
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(encoded))

    def _command(self, name: str, parameters: dict[str, Any]) -> Any:
        if self._socket is None:
            self._socket = self._connect()
            self._reader = self._socket.makefile("rb")
            self._read()  # its greeting
            self._command("WebDriver:NewSession", {})
        message = json.dumps([0, next(self._numbers), name, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self._read()
        if error is not None:
            raise FirefoxError(f"{name}: {error['error']}: {error['message']}")
        return result

    def _read(self) -> Any:
        length = b""
        while (octet := self._reader.read(1)) != b":":
            assert octet, "Firefox has hung up"
            length += octet
        return json.loads(self._reader.read(int(length)))


@contextmanager
def firefox() -> Iterator[FirefoxPage]:
    """Run a Firefox with a fresh profile and an empty page; skip the test in one line without one.

    It starts in the background; the first use of its page waits for it.
    """
    path = require_program("firefox-esr", "firefox-esr")
    with tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as home:
        profile = Path(home, "profile")
        profile.mkdir()
        (profile / "user.js").write_text(PREFERENCES)
        with open(Path(home, "output"), "w+") as output:
            process = subprocess.Popen(
                [path, "--headless", "--marionette", "--no-remote", "--profile", str(profile), "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"HOME": home},
            )
            page = FirefoxPage(lambda: _connect(process, profile / "MarionetteActivePort"))
            try:
                yield page
            finally:
                page.close()
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)


def _connect(process: subprocess.Popen[bytes], port_file: Path) -> socket.socket:
    def port() -> int:
        assert process.poll() is None, f"Firefox ended with status {process.returncode}"
        return int(port_file.read_text() or 0) if port_file.exists() else 0

    number = eventually(port, START, "Firefox does not listen", interval=0.05)
    return socket.create_connection(("127.0.0.1", number), timeout=ANSWER)
