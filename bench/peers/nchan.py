"""nchan, nginx's pub/sub module, from Debian: one worker, EventSource, messages in shared memory."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import build
from bench.peers.base import Command, Peer, Target

MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
)

# The buffer is longer than the default of 10 messages, so that a subscriber that falls behind loses nothing.
CONFIGURATION = """
load_module {module};
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    keepalive_requests 100000000;
    nchan_shared_memory_size 512M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /healthz {{ return 200; }}
        location = /pub {{
            nchan_publisher http;
            nchan_channel_id $arg_id;
            nchan_message_buffer_length 10000;
            nchan_message_timeout 5m;
        }}
        location ~ ^/events/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
            nchan_eventsource_ping_interval 15;
        }}
    }}
}}
"""


class Nchan(Peer):
    """Publishes with POST /pub?id=…; answers 201, or 202 when nobody listens."""

    name = "nchan"
    title = "nchan (nginx)"
    stores = "the event, in nginx's shared memory"
    target = Target(publish_path="/pub?id={channel}")
    resumes = True

    def prepare(self) -> None:
        build.program("nginx")
        self._module()

    @staticmethod
    def _module() -> Path:
        for path in MODULES:
            if path.exists():
                return path
        raise build.Unavailable("nginx's nchan module (libnginx-mod-nchan) is not installed")

    def version(self) -> str:
        nginx = subprocess.run([build.program("nginx"), "-v"], capture_output=True, text=True).stderr
        query = ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]
        package = subprocess.run(query, capture_output=True, text=True).stdout
        return f"nginx {nginx.strip().rpartition('/')[2]}, nchan {package or 'unknown'}"

    def commands(self, port: int, folder: Path, streams: int) -> list[Command]:
        folder.chmod(0o755)  # if the master is root, the worker runs as another user
        text = CONFIGURATION.format(module=self._module(), folder=folder, port=port)
        path = folder / "nginx.conf"
        path.write_text(text)
        return [Command([build.program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(path)])]
