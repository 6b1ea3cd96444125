"""Real proxies with the configurations of docs/proxies.md. Only addresses and places for files are replaced."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.fetched import program
from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.server import ROOT
from tests.support.wait import eventually

DOCS: Final = ROOT / "docs" / "proxies.md"
HERE: Final = Path(__file__).parent


class Proxy(NamedTuple):
    """A running proxy: its port and its process."""

    port: int
    process: subprocess.Popen[bytes]


def blocks(title: str) -> list[str]:
    """Return the code blocks of a chapter of docs/proxies.md."""
    chapter = DOCS.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", chapter, re.MULTILINE | re.DOTALL)


def replaced(text: str, replacements: dict[str, str]) -> str:
    """Replace each text, which must be there exactly once, so that the rest is what the docs show."""
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times, not once"
        text = text.replace(old, new)
    return text


def haproxy(folder: Path, port: int, upstream: int) -> list[str]:
    (text,) = blocks("HAProxy")
    config = folder / "haproxy.cfg"
    config.write_text(
        replaced(text, {"bind :8000": f"bind 127.0.0.1:{port}", "headwater:8080": f"127.0.0.1:{upstream}"})
    )
    return [require_program("haproxy", "haproxy"), "-db", "-f", str(config)]


def caddy(folder: Path, port: int, upstream: int) -> list[str]:
    (text,) = blocks("Caddy")
    config = folder / "Caddyfile"
    # No interface for administration, whose port is fixed.
    config.write_text(
        "{\n\tadmin off\n}\n"
        + replaced(text, {":8000 {": f"http://127.0.0.1:{port} {{", "headwater:8080": f"127.0.0.1:{upstream}"})
    )
    return [require_program("caddy", "caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]


def traefik(folder: Path, port: int, upstream: int) -> list[str]:
    static, dynamic = blocks("Traefik")
    config, routes = folder / "traefik.yaml", folder / "dynamic.yaml"
    config.write_text(
        replaced(static, {'":8000"': f'"127.0.0.1:{port}"', "/etc/traefik/dynamic.yaml": str(routes)})
        + "global: {checkNewVersion: false, sendAnonymousUsage: false}\n"
    )
    routes.write_text(replaced(dynamic, {"headwater:8080": f"127.0.0.1:{upstream}"}))
    path = program("traefik", HERE / "requirements-traefik.txt", _ends_with("/scripts/traefik"), "3.7.15")
    return [path, f"--configfile={config}"]


APACHE_MODULES: Final = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "setenvif")


def apache(folder: Path, port: int, upstream: int) -> list[str]:
    (text,) = blocks("Apache")
    path = require_program("apache2", "apache2-bin")
    # What a distribution's own configuration has around it.
    around = [f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in APACHE_MODULES]
    around += [f'ServerRoot "{folder}"', f'DefaultRuntimeDir "{folder}"', f'PidFile "{folder}/pid"', "ServerName localhost"]
    around += [f'ErrorLog "{folder}/error.log"', f"Listen 127.0.0.1:{port}"]
    if os.getuid() == 0:
        around += ["User nobody", "Group nogroup"]
    config = folder / "apache.conf"
    config.write_text(
        "\n".join(around)
        + "\n"
        + replaced(text, {"<VirtualHost *:8000>": f"<VirtualHost *:{port}>", "headwater:8080": f"127.0.0.1:{upstream}"})
    )
    return [path, "-DFOREGROUND", "-f", str(config)]


def envoy(folder: Path, port: int, upstream: int) -> list[str]:
    (text,) = blocks("Envoy")
    config = folder / "envoy.yaml"
    config.write_text(
        replaced(
            text,
            {
                "address: 0.0.0.0, port_value: 8000": f"address: 127.0.0.1, port_value: {port}",
                "address: headwater, port_value: 8080": f"address: 127.0.0.1, port_value: {upstream}",
            },
        )
    )
    path = program("envoy", HERE / "requirements-envoy.txt", _ends_with("/_bin/envoy"), "1.40.0")
    return [path, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]


def nginx(folder: Path, port: int, upstream: int) -> list[str]:
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    replacements = {
        "listen 8000;": f"listen 127.0.0.1:{port};",
        "server headwater:8080 ": f"server 127.0.0.1:{upstream} ",
        "worker_processes auto;": "worker_processes 1;",
        "pid /tmp/nginx.pid;": f"pid {folder}/pid;",
        "error_log /dev/stderr warn;": f"error_log {folder}/error.log warn;",
    }
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        replacements[f" /tmp/{name};"] = f" {folder}/{name};"
    config = folder / "nginx.conf"
    config.write_text(replaced(text, replacements))
    # Started by root, its workers are another user's, who may not write into a test's folder.
    more = "daemon off; user root;" if os.getuid() == 0 else "daemon off;"
    return [require_program("nginx", "nginx"), "-c", str(config), "-p", str(folder), "-g", more]


#: Each returns the command that starts the proxy: its folder, its port, the service's port.
PROXIES: Final[dict[str, Callable[[Path, int, int], list[str]]]] = {
    "nginx": nginx,
    "HAProxy": haproxy,
    "Caddy": caddy,
    "Traefik": traefik,
    "Apache": apache,
    "Envoy": envoy,
}


@contextlib.contextmanager
def running(name: str, folder: Path, upstream: int) -> Iterator[Proxy]:
    """Start a proxy over the service's port and wait until it answers; kill it at the end."""
    folder.mkdir(parents=True)
    reserved = ReservedPort()
    output = folder / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            PROXIES[name](folder, reserved.number, upstream),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd=folder,
            env=os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        )
    reaper.watch(process.pid)

    def answers() -> bool:
        assert process.poll() is None, f"{name} ended: {output.read_text()[-2000:]}"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", reserved.number, timeout=5)) as connection:
            with contextlib.suppress(OSError):
                connection.request("GET", "/openapi.json")
                # Traefik accepts before it has read its routes, and answers 404 until then.
                return connection.getresponse().status != 404
        return False

    try:
        eventually(answers, 20.0, lambda: output.read_text()[-2000:])
        yield Proxy(reserved.number, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        reaper.release(process.pid)
        reserved.release()


def _ends_with(suffix: str) -> Callable[[Path], bytes]:
    def unpack(wheel: Path) -> bytes:
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(suffix))
            return archive.read(member)

    return unpack
