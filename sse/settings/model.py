"""All settings: name, default, unit, range and reason of each, in this one class.

A setting's name is the environment variable's, and the attribute is the same in lower case: ``SSE_HEARTBEAT``
is ``settings.sse_heartbeat``. 0 switches a time-out off, as in Go's ``http.Server``. The table in
docs/settings.md is printed from here (``python -m sse.settings``), so a reason is a sentence for users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import SecretStr

from .declare import number, text
from .errors import PREFIXES
from .file import FILE_SETTING
from .live import LiveSettings, named_file
from .values import (
    Algorithms,
    ChannelPatterns,
    Host,
    LogUrl,
    Lower,
    Networks,
    Origins,
    RedisPrefix,
    SecretKey,
    ServerHeader,
)

DAY = 86400         # seconds
DRAIN_MARGIN = 5    # seconds for ordinary requests and the exit itself after the last stream has ended
KILL_MARGIN = 5     # seconds between gunicorn's own limit and the kubelet's SIGKILL after it


class Settings(LiveSettings):
    """The service's settings, checked. Nobody may set one; those that are ``live`` change with the settings file.

    ``Settings()`` reads the environment alone; :meth:`from_environ` the settings file, too, with errors that
    people can read; :meth:`from_mapping` reads a Flask ``app.config`` and leaves the environment out.
    """

    # -- Listening
    host: Host = text(
        "127.0.0.1",
        "an IP address or a host name, such as 127.0.0.1, 0.0.0.0 or ::",
        "Address to listen on. With any but a loopback address, publishing is closed until a key, tokens or "
        "`SSE_AUTH=none` open it.",
    )
    port: int = number(
        8080, 0, 65535, "",
        "Port of streams, publishing and the console; 0 takes a free one.",
    )
    health_port: int = number(
        8081, 0, 65535, "",
        "Port of the probes and of `/metrics`, with connections of its own, so that full streams cannot "
        "fail a probe; 0 takes a free one. With gunicorn's `--bind`: the listener with this port, or with 0 the last.",
    )
    web_concurrency: int = number(
        1, 1, 256, "processes",
        "Worker processes. One fills one core; all of them follow the same log.",
    )
    worker_connections: int = number(
        1000, 8, 100_000, "connections",
        "Connections of one worker and listener that are not streams (yet, or any more). Bounds what slow "
        "or idle clients can hold; streams are counted by `SSE_MAX_STREAMS`.",
    )

    # -- The settings file
    sse_config_file: Path | None = text(
        None,
        "the path of a file of NAME=value lines",
        "A file with settings, which win over the environment's; read again when it changes: a mounted ConfigMap.",
    )

    # -- Logging
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], Lower] = text(
        "info",
        "debug, info, warning, error or critical",
        "Lines below this level are left out.",
        live=True,
    )
    log_format: Annotated[Literal["auto", "text", "json"], Lower] = text(
        "auto",
        "auto, text or json",
        "How log lines look; auto is text on a terminal and JSON elsewhere.",
    )
    sse_trace_lines: int = number(
        20, 0, 100_000, "lines per second",
        "Lines about deliveries of events whose `traceparent` is sampled, for each worker; those left out are "
        "counted. Anybody who may publish can ask for one with each event. 0 ignores `traceparent`.",
        live=True,
    )
    sse_otel: bool = text(
        False,
        "true or false (1 or 0, yes or no, on or off), and true only with the extra otel installed "
        "(requirements-otel.txt)",
        "Whether spans of publishing and delivering are sent by OpenTelemetry (OTLP/HTTP), as the SDK's own "
        "`OTEL_…` variables say.",
    )

    # -- The event log
    sse_log: LogUrl = text(
        "sqlite:///var/headwater.db",
        "sqlite:///relative/path, sqlite:////absolute/path, redis://host:port/0, rediss://…, "
        "redis+sentinel://…, or memory: (one worker)",
        "Where events are kept, and from where every worker and pod reads them.",
        repr=False,
    )
    sse_retain_events: int = number(
        100_000, 1, 1_000_000_000, "events",
        "The newest events that are kept for clients that come back. Bounds the log's size.",
        live=True,
    )
    sse_retain_seconds: float = number(
        DAY, 1, 10 * 366 * DAY, "seconds",
        "How long an event is kept, unless `SSE_RETAIN_EVENTS` ends it sooner. A client that was away for "
        "longer gets a `stream-reset`.",
        live=True,
    )
    sse_redis_prefix: RedisPrefix = text(
        "headwater",
        "1 to 64 letters, digits and . _ : - { }, beginning with a letter, a digit or {",
        "First part of every key in Redis, so that several services can share one.",
    )

    # -- Streams
    sse_retry: int = number(
        2000, 10, 3_600_000, "milliseconds",
        "What clients are told to wait before they reconnect. A lower value recovers sooner, and makes a "
        "bigger storm of an outage.",
        live=True,
    )
    sse_heartbeat: float = number(
        15, 0.01, 3600, "seconds",
        "Silence after which a stream gets a heartbeat. Stay below the idle time-out of everything in "
        "between (often 60 s): it keeps connections open, tells dead ones, and moves quiet clients' cursors "
        "on.",
        live=True,
    )
    sse_max_stream_age: float = number(
        3600, 0, 30 * DAY, "seconds",
        "A stream is ended cleanly after 80 to 100 % of this, and its client reconnects: pods fill evenly "
        "again, and clients that vanished behind a proxy do not stay for ever. 0 is never.",
        live=True,
    )
    sse_replay_limit: int = number(
        10_000, 1, 10_000_000, "events",
        "The most events that one reconnection is sent from the past; beyond it, a `stream-reset` and the "
        "newest ones. Caps what one request can make the log read.",
        live=True,
    )
    sse_window_bytes: int = number(
        33_554_432, 1024, 2**36, "bytes",
        "Newest events that each worker keeps in memory. Nearly every reconnection is answered from it, "
        "without reading the log.",
    )
    sse_max_channels: int = number(
        64, 1, 1024, "channels",
        "Channels that one stream may join; 400 beyond. Bounds the work of one subscription.",
        live=True,
    )
    sse_max_streams: int = number(
        10_000, 1, 1_000_000, "streams",
        "Streams that one worker holds. A new one beyond it is told to come back later; an old one never "
        "has to go. Keep the limit of open files (`ulimit -n`) above it.",
        live=True,
    )
    sse_max_streams_per_ip: int = number(
        0, 0, 1_000_000, "streams",
        "Streams that one worker holds for one client address; 0 is no limit. Behind a proxy, set "
        "`SSE_TRUSTED_PROXIES` first, or all clients are one.",
        live=True,
    )

    # -- Publishing
    sse_max_event_bytes: int = number(
        65_536, 1, 16_777_216, "bytes",
        "Data of one event; 413 beyond. Every subscriber is sent it, so it multiplies.",
        live=True,
    )
    sse_max_batch_bytes: int = number(
        16_777_216, 1, 2**30, "bytes",
        "Body of one batch (`POST /events`); 413 beyond. It is held in memory while it is checked.",
        live=True,
    )
    sse_max_batch_events: int = number(
        10_000, 1, 1_000_000, "events",
        "Events in one batch; 413 beyond. A batch is one transaction: others wait for it.",
        live=True,
    )
    sse_publish_rate: float = number(
        0, 0, 1_000_000, "requests per second",
        "Publishing requests a second for each key or token; 429 beyond, and 0 is no limit. A batch is one "
        "request.",
        live=True,
    )

    # -- Time-outs and limits of connections (Go's http.Server, by the same names)
    sse_read_header_timeout: float = number(
        5, 0, DAY, "seconds",
        "From the connection, or from a further request's first byte, until the headers are complete. Ends "
        "clients that send them slowly to hold connections.",
        live=True,
    )
    sse_read_timeout: float = number(
        15, 0, DAY, "seconds",
        "From the same moment until the whole request is read, body included.",
        live=True,
    )
    sse_write_timeout: float = number(
        10, 0, DAY, "seconds",
        "An ordinary response: until it is written. A stream: the longest time in which none of the bytes "
        "that wait for it gets away. The client resumes when it comes back.",
        live=True,
    )
    sse_idle_timeout: float = number(
        75, 0, DAY, "seconds",
        "A kept-alive connection between two requests. Longer than a load balancer's own (often 60 s), "
        "which would else send a request into a connection that is just being closed: a 502.",
        live=True,
    )
    sse_keepalive_requests: int = number(
        1000, 0, 1_000_000_000, "requests",
        "Requests that one connection may send, so that balancing goes on; 0 is no limit.",
        live=True,
    )
    sse_max_header_bytes: int = number(
        16_384, 1024, 1_048_576, "bytes",
        "Request line and headers together; 431 beyond. Bounds what a request can hold before anybody knows "
        "who sent it.",
    )
    sse_server_header: ServerHeader = text(
        "headwater",
        "printable ASCII of at most 256 characters, or empty",
        "The `Server` header of every response; empty leaves it out.",
        live=True,
    )

    # -- Draining (SIGTERM)
    sse_drain_delay: float = number(
        5, 0, 600, "seconds",
        "After SIGTERM, time in which everything is still served while the pod is being taken out of its "
        "Service's endpoints.",
    )
    sse_drain_window: float = number(
        15, 0, 3600, "seconds",
        "After that, time over which the streams are ended one by one, so that the other pods get their "
        "clients evenly. `terminationGracePeriodSeconds` must be at least delay + window + 10.",
    )

    # -- Who may do what
    sse_auth: Annotated[Literal["auto", "none"], Lower] = text(
        "auto",
        "auto or none",
        "`none` lets everybody publish and read: only for networks that you trust. `auto` goes by the keys "
        "below; without any, publishing is open on a loopback address only.",
        live=True,
    )
    sse_publish_key: SecretKey | None = text(
        None,
        "at least 16 letters, digits and - . _ ~ + / (with = at the end, if need be)",
        "The key that publishers send as `Authorization: Bearer`; reading stays public.",
        live=True,
    )
    sse_publish_key_file: Path | None = text(
        None,
        "the path of a file",
        "A file with that key, one a line, read again when it changes: a mounted Secret.",
        live=True,
    )
    sse_jwt_key: SecretStr | None = text(
        None,
        "a secret of at least 32 bytes for HS256, or a public key in PEM form for the other algorithms",
        "The key that tokens are checked with. Reading then needs a token too, except for "
        "`SSE_PUBLIC_CHANNELS`.",
        live=True,
    )
    sse_jwt_key_file: Path | None = text(
        None,
        "the path of a file",
        "A file with that key, read again when it changes.",
        live=True,
    )
    sse_jwks_file: Path | None = text(
        None,
        "the path of a file",
        "A file with a JSON Web Key Set (RFC 7517) instead, read again when it changes; needs "
        "`SSE_JWT_ALGORITHMS`.",
        live=True,
    )
    sse_jwt_algorithms: Algorithms = text(
        ("HS256",),
        "a list from HS256, RS256, ES256 and EdDSA",
        "Algorithms that a token may be signed with. A token cannot choose another one.",
        live=True,
    )
    sse_jwt_issuer: str | None = text(
        None,
        "text",
        "What a token's `iss` claim must be, if set.",
        live=True,
    )
    sse_jwt_audience: str | None = text(
        None,
        "text",
        "What a token's `aud` claim must contain, if set.",
        live=True,
    )
    sse_public_channels: ChannelPatterns = text(
        (),
        "a list of channel names, each of which may end in * for all that begin so",
        "Channels that may be read without a token.",
        live=True,
    )
    sse_cors_origins: Origins = text(
        (),
        "a list of origins such as https://app.example.com:8443 (no path), or *",
        "Web pages that may use the service from another origin. `*` allows all, but never with cookies.",
        live=True,
    )
    sse_trusted_proxies: Networks = text(
        (),
        "a list of IP addresses and networks such as 10.0.0.0/8",
        "Proxies whose `X-Forwarded-*` and `Forwarded` headers are believed. From anybody else they are "
        "ignored, as anyone can write them. Where any is named, the peer of a Unix socket is one, too.",
    )

    # -- Health
    health_canary_max_age: float = number(
        5, 1, 3600, "seconds",
        "`/readyz` fails when a worker's own test stream has seen nothing for longer. It is sent an event "
        "each second.",
        live=True,
    )
    health_loop_lag_max: float = number(
        2, 0.01, 3600, "seconds",
        "`/healthz` fails while the event loop is later than this: something blocks it.",
        live=True,
    )
    health_ready_strict: bool = text(
        False,
        "true or false (1 or 0, yes or no, on or off)",
        "Whether `/readyz` fails while the log cannot be reached. All pods share the log, so taking them "
        "all out of the Service helps nobody; by default it is reported only.",
        live=True,
    )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """The settings in a Flask app's configuration, and in the file that its SSE_CONFIG_FILE names; the
        environment is not looked at.

        Only keys that begin with ``SSE_`` or ``HEALTH_`` count, as ``HOST`` or ``LOG_LEVEL`` may be the app's
        own, and unknown ones are left alone. Values may be text as in the environment, or have their type.

        :raises SettingsError: with one line for each setting that cannot be used.
        """
        known = _MappingSettings.names()
        given = {known[key]: value for key, value in config.items() if key in known}
        return _MappingSettings.read(given, named_file(config.get(FILE_SETTING)))

    @property
    def bind(self) -> str:
        """The main listener in gunicorn's form, ``address:port``."""
        return _address(self.host, self.port)

    @property
    def health_bind(self) -> str:
        """The health listener in the same form."""
        return _address(self.host, self.health_port)

    @property
    def graceful_timeout(self) -> int:
        """Seconds from SIGTERM until gunicorn ends a worker by force: the whole drain, and a margin."""
        return math.ceil(self.sse_drain_delay + self.sse_drain_window) + DRAIN_MARGIN

    @property
    def termination_grace(self) -> int:
        """Seconds that a manifest's ``terminationGracePeriodSeconds`` must at least be."""
        return self.graceful_timeout + KILL_MARGIN


class _MappingSettings(Settings):
    """The same settings from what is handed over alone."""

    reads_environment: ClassVar[bool] = False

    @classmethod
    def names(cls) -> dict[str, str]:
        return {name: field for name, field in super().names().items() if name.startswith(PREFIXES)}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
