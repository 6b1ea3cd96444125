"""nginx as it is after ``apt-get install nginx`` and three lines of ``proxy_pass``."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.wait import eventually

_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            {more}
        }}
    }}
}}
"""


@contextmanager
def nginx_with_its_defaults(folder: Path, upstream: int, more: str = "") -> Iterator[int]:
    """Run it and yield its port. more: further directives of the location."""
    program = require_program("nginx", "nginx")
    folder.mkdir()
    reserved = ReservedPort()
    config = folder / "nginx.conf"
    config.write_text(_CONFIGURATION.format(folder=folder, port=reserved.number, upstream=upstream, more=more))
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [program, "-c", str(config), "-p", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    reaper.watch(process.pid)
    try:
        eventually((folder / "nginx.pid").exists, 10.0, lambda: (folder / "output").read_text())
        yield reserved.number
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        reaper.release(process.pid)
        reserved.release()
