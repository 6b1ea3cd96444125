"""The command from the checkout: ``python -m headwater``, with nothing of ours in its environment but what is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

from tests.support.server import ROOT
from tests.support.wait import eventually

COMMAND = (sys.executable, "-W", "error", "-m", "headwater")


def environment(**env: str) -> dict[str, str]:
    """An environment in which the checkout's ``headwater`` is found from any folder."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env}


def headwater(
    *words: str, stdin: str | bytes = "", cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    octets = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *words], input=octets, env=environment(**env), cwd=cwd, capture_output=True, timeout=60
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """The command in the background; ended with the ``with`` block."""

    def __init__(self, directory: Path, *words: str, **env: str) -> None:
        self._files = directory / "stdout", directory / "stderr"
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self._process = subprocess.Popen(
                [*COMMAND, *words], env=environment(**env), cwd=ROOT, stdin=subprocess.PIPE, stdout=out, stderr=err
            )

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def lines(self) -> list[str]:
        """What it has printed to standard output."""
        return self._files[0].read_text().splitlines()

    @property
    def told(self) -> str:
        """What it has printed to standard error."""
        return self._files[1].read_text()

    def wait_for(self, lines: list[str]) -> None:
        """Wait until it has printed exactly these."""
        eventually(lambda: self.lines == lines, 20, lambda: f"{lines} expected: {self.lines}\n{self.told}")

    def wait_told(self, text: str) -> None:
        """Wait until it has said this."""
        eventually(lambda: text in self.told, 20, lambda: f"{text!r} expected: {self.told}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for its end; its status."""
        return self._process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        self.stdin.close()
