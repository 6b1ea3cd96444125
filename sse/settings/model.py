"""All settings: name, default, unit, range and reason of each, in one class.

The attribute is the environment variable's name in lower case: ``SSE_HEARTBEAT`` is ``settings.sse_heartbeat``. 0
switches a time-out off, as in Go's ``http.Server``. ``python -m sse.settings`` prints the tables of docs/settings.md
from this class, so the reasons are written for users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import SecretStr

from ..log import ALLOWED_URLS
from ..log.redis.codec import PREFIX_ALLOWED
from ..log.retain import ALLOWED as RULES_ALLOWED
from .declare import live_number, live_text, number, text
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
    RetainRules,
    SecretKey,
    ServerHeader,
    UrlPrefix,
)

DAY = 86400         # seconds
DRAIN_MARGIN = 5    # seconds for ordinary requests and the exit, after the last stream has ended
KILL_MARGIN = 5     # seconds from gunicorn's own limit to the kubelet's SIGKILL


class Settings(LiveSettings):
    """The checked settings. Read-only; the ``live`` ones change with the settings file.

    ``Settings()`` reads only the environment. :meth:`from_environ` also reads the settings file, and its errors are for
    people. :meth:`from_mapping` reads a Flask ``app.config`` instead of the environment.
    """

    # -- Listening
    host: Host = text(
        "127.0.0.1", "an IP address or a host name, such as 127.0.0.1, 0.0.0.0 or ::",
        "Address to listen on. Unless it is a loopback address, publishing is closed until you set a key for "
        "publishing or for tokens, or `SSE_AUTH=none`.",
    )
    port: int = number(
        8080, 0, 65535, "",
        "Port for streams, publishing and the console. 0 picks a free one.",
    )
    health_port: int = number(
        8081, 0, 65535, "",
        "Port for the probes and `/metrics`. It has connections of its own, so a flood of streams cannot make a probe "
        "fail. 0 picks a free one. With gunicorn's `--bind`: the listener on this port; with 0, the last listener.",
    )
    web_concurrency: int = number(
        1, 1, 256, "processes",
        "Worker processes. Each can use one core, and all follow the same log.",
    )
    worker_connections: int = number(
        1000, 8, 100_000, "connections",
        "The most connections of one worker and listener that are not streams; `SSE_MAX_STREAMS` limits those. Limits "
        "what slow or idle clients can hold.",
    )

    sse_url_prefix: UrlPrefix = text(
        "/events", "a path such as /live/events: letters, digits and - . _ ~ between slashes, none at the end",
        "Where streams are read and events are published, for an app that has its own `/events`. Our other routes "
        "stand beside it: with `/live/events`, the channels are listed at `/live/channels`.",
    )

    # -- The settings file
    sse_config_file: Path | None = text(
        None, "the path of a file of NAME=value lines",
        "A file with settings, such as a mounted ConfigMap. They override the environment. It is read again when it "
        "changes.",
    )

    # -- Logging
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], Lower] = live_text(
        "info", "debug, info, warning, error or critical",
        "Log only lines of this level and above.",
    )
    log_format: Annotated[Literal["auto", "text", "json"], Lower] = text(
        "auto", "auto, text or json",
        "Format of log lines. auto: text on a terminal, JSON elsewhere.",
    )
    sse_trace_lines: int = live_number(
        20, 0, 100_000, "lines per second",
        "Log lines of one worker about deliveries of events whose `traceparent` is sampled. Limits the log, because a "
        "publisher can ask for a line with each event; further lines are only counted. 0 ignores `traceparent`.",
    )
    sse_otel: bool = text(
        False, "true or false (1 or 0, yes or no, on or off); true needs the extra otel (requirements-otel.txt)",
        "Whether to send spans of publishing and delivery with OpenTelemetry (OTLP/HTTP). The SDK's own `OTEL_…` "
        "variables say where to.",
    )

    # -- The event log
    sse_log: LogUrl = text(
        "sqlite:///var/headwater.db", ALLOWED_URLS,
        "Where events are stored. Every worker and pod reads them from there. With `?sync=full` at its end, a publish "
        "is acknowledged once it is on the disk: see [durability.md](durability.md).",
        repr=False,
    )
    sse_retain_events: int = live_number(
        100_000, 1, 1_000_000_000, "events",
        "How many events the log keeps for clients that reconnect; it deletes the oldest. Limits the log's size.",
    )
    sse_retain_seconds: float = live_number(
        DAY, 1, 10 * 366 * DAY, "seconds",
        "How long the log keeps an event, unless `SSE_RETAIN_EVENTS` deletes it sooner. A client that was away longer "
        "gets a `stream-reset`.",
    )
    sse_retain: RetainRules = live_text(
        (), RULES_ALLOWED,
        "What the log keeps of certain channels; the first rule that matches a channel decides: "
        "`audit:*=30d,cursor:*=60s,orders=100000/7d`. A count is for each channel. Channels without a rule share "
        "`SSE_RETAIN_EVENTS`.",
    )
    sse_redis_prefix: RedisPrefix = text(
        "headwater", PREFIX_ALLOWED,
        "Prefix of all keys in Redis, so that several services can share a server.",
    )

    # -- Streams
    sse_retry: int = live_number(
        2000, 10, 3_600_000, "milliseconds",
        "How long clients wait before they reconnect. With a lower value they recover sooner, but after an outage more "
        "of them come back at once.",
    )
    sse_heartbeat: float = live_number(
        15, 0.01, 3600, "seconds",
        "A stream gets a heartbeat after this much silence. Heartbeats keep connections open, reveal dead ones, and "
        "advance the cursors of quiet clients. Stay below the idle time-outs of all proxies on the way (often 60 s).",
    )
    sse_max_stream_age: float = live_number(
        3600, 0, 30 * DAY, "seconds",
        "A stream ends cleanly after 80 to 100 % of this, and its client reconnects. So the load spreads over new "
        "pods, and connections end whose client vanished behind a proxy. 0: never.",
    )
    sse_replay_limit: int = live_number(
        10_000, 1, 10_000_000, "events",
        "The most events that one reconnection replays. A client that missed more gets a `stream-reset` and the newest "
        "ones. Limits how much of the log one request can read.",
    )
    sse_window_bytes: int = number(
        33_554_432, 1024, 2**36, "bytes",
        "Memory of each worker for the newest events. It serves nearly all reconnections without reading the log.",
    )
    sse_compress: Annotated[Literal["auto", "on", "off"], Lower] = live_text(
        "auto", "auto, on or off",
        "Whether streams are compressed for clients that accept gzip. `auto`: only where everybody may read, and the "
        "request has no cookie and no `Authorization`; see [security](security.md#compression). A change counts for "
        "streams that open from then on.",
    )
    sse_max_channels: int = live_number(
        64, 1, 1024, "channels",
        "The most channels of one stream; more are refused (400). Limits the work for one subscription.",
    )
    sse_max_streams: int = live_number(
        10_000, 1, 1_000_000, "streams",
        "The most streams of one worker. Further ones are told to retry later; open ones stay. Keep the limit of open "
        "files (`ulimit -n`) above it.",
    )
    sse_max_streams_per_ip: int = live_number(
        0, 0, 1_000_000, "streams",
        "The most streams of one worker for one client address. 0: no limit. Behind a proxy, set "
        "`SSE_TRUSTED_PROXIES` first, or all clients have the proxy's address.",
    )

    # -- Publishing
    sse_max_event_bytes: int = live_number(
        65_536, 1, 16_777_216, "bytes",
        "The largest data of one event; more is refused (413). Every subscriber receives it, so its size multiplies.",
    )
    sse_max_batch_bytes: int = live_number(
        16_777_216, 1, 2**30, "bytes",
        "The largest body of one batch (`POST /events`); more is refused (413). It is in memory while it is checked.",
    )
    sse_max_batch_events: int = live_number(
        10_000, 1, 1_000_000, "events",
        "The most events of one batch; more are refused (413). A batch is one transaction: other publishers wait.",
    )
    sse_publish_rate: float = live_number(
        0, 0, 1_000_000, "requests per second",
        "The most publishing requests of one key or token; more are refused (429). A batch counts once. 0: no limit.",
    )

    # -- Runs
    sse_run_flush: float = live_number(
        20, 0, 1000, "milliseconds",
        "What runs yield within this time is stored by one append. A higher value costs less for each item, and adds "
        "as much to its way to the readers.",
    )
    sse_run_grace: float = number(
        0, 0, DAY, "seconds",
        "How long a worker goes on with its runs after SIGTERM; then they end as `lost`. Its streams are drained as "
        "ever. 0: until the end of the drain. `terminationGracePeriodSeconds` must be at least this + 10, too.",
    )
    sse_max_runs: int = live_number(
        1000, 1, 1_000_000, "runs",
        "The most runs of one worker at a time; more are refused (503). Each may hold 1 MiB while the log is away.",
    )

    # -- Time-outs and limits of connections (named as in Go's http.Server)
    sse_read_header_timeout: float = live_number(
        5, 0, DAY, "seconds",
        "Time for a request's headers, counted from the connection, or from the first byte of a later request. Stops "
        "clients that hold connections by sending headers slowly.",
    )
    sse_read_timeout: float = live_number(
        15, 0, DAY, "seconds",
        "Time for the whole request with its body, counted from the same moment.",
    )
    sse_write_timeout: float = live_number(
        10, 0, DAY, "seconds",
        "An ordinary response must be written within this time. A stream ends if none of the bytes that wait for it "
        "could be written for this long; its client reconnects and resumes.",
    )
    sse_idle_timeout: float = live_number(
        75, 0, DAY, "seconds",
        "How long a connection stays open between two requests. Keep it longer than your load balancer's own (often "
        "60 s), or that may send a request just as we close the connection, and answer 502.",
    )
    sse_keepalive_requests: int = live_number(
        1000, 0, 1_000_000_000, "requests",
        "The most requests of one connection, so that clients are balanced again. 0: no limit.",
    )
    sse_max_header_bytes: int = number(
        16_384, 1024, 1_048_576, "bytes",
        "The largest request line and headers together; more are refused (431). Limits the memory that a client can "
        "take before we know who it is.",
    )
    sse_server_header: ServerHeader = live_text(
        "headwater", "printable ASCII of at most 256 characters, or empty",
        "The `Server` header of every response. Empty: no such header.",
    )

    # -- Draining (SIGTERM)
    sse_drain_delay: float = number(
        5, 0, 600, "seconds",
        "How long the pod serves everything after SIGTERM, while Kubernetes removes it from its Service's endpoints.",
    )
    sse_drain_window: float = number(
        15, 0, 3600, "seconds",
        "After the delay, streams end one by one over this time, so that their clients do not all reconnect at once. "
        "`terminationGracePeriodSeconds` must be at least delay + window + 10.",
    )

    # -- Who may do what
    sse_auth: Annotated[Literal["auto", "none"], Lower] = live_text(
        "auto", "auto or none",
        "`auto`: the keys below decide; without any, only this machine may publish. `none` lets everybody publish and "
        "read: only for networks that you trust.",
    )
    sse_publish_key: SecretKey | None = live_text(
        None, "at least 16 letters, digits and - . _ ~ + / (and = at the end)",
        "The key that publishers send as `Authorization: Bearer`. Unless you set a token key, too, everybody may read.",
    )
    sse_publish_key_file: Path | None = live_text(
        None, "the path of a file",
        "A file with such keys, one per line, for example a mounted Secret. It is read again when it changes.",
    )
    sse_jwt_key: SecretStr | None = live_text(
        None, "a secret of at least 32 bytes for HS256, or a public key in PEM form for the other algorithms",
        "The key that verifies tokens. Reading then needs a token, too, except for `SSE_PUBLIC_CHANNELS`.",
    )
    sse_jwt_key_file: Path | None = live_text(
        None, "the path of a file",
        "A file with that key. It is read again when it changes.",
    )
    sse_jwks_file: Path | None = live_text(
        None, "the path of a file",
        "A file with a JSON Web Key Set (RFC 7517) that verifies tokens. It is read again when it changes. Set "
        "`SSE_JWT_ALGORITHMS`, too.",
    )
    sse_jwt_algorithms: Algorithms = live_text(
        ("HS256",), "a list from HS256, RS256, ES256 and EdDSA",
        "The algorithms with which a token may be signed. A token cannot choose another.",
    )
    sse_jwt_issuer: str | None = live_text(
        None, "text",
        "If set: a token's `iss` claim must be this.",
    )
    sse_jwt_audience: str | None = live_text(
        None, "text",
        "If set: a token's `aud` claim must contain this.",
    )
    sse_public_channels: ChannelPatterns = live_text(
        (), "a list of channel names, each of which may end in * for any rest of a name",
        "Channels that everybody may read without a token.",
    )
    sse_cors_origins: Origins = live_text(
        (), "a list of origins such as https://app.example.com:8443 (no path), or *",
        "Other origins whose web pages may use the service. `*` allows all, but never with cookies.",
    )
    sse_trusted_proxies: Networks = text(
        (), "a list of IP addresses and networks such as 10.0.0.0/8",
        "Proxies whose `X-Forwarded-*` and `Forwarded` headers we believe. Anybody can send such headers, so we ignore "
        "everybody else's. If you name any proxy, the peer of a Unix socket is trusted, too.",
    )

    # -- Health
    health_canary_max_age: float = live_number(
        5, 1, 3600, "seconds",
        "`/readyz` fails if a worker's own test stream has received nothing for this long. We send it an event each "
        "second.",
    )
    health_loop_lag_max: float = live_number(
        2, 0.01, 3600, "seconds",
        "`/healthz` fails while the event loop is later than this, because something blocks it.",
    )
    health_ready_strict: bool = live_text(
        False, "true or false (1 or 0, yes or no, on or off)",
        "Whether `/readyz` fails while the log is unreachable. By default it only reports this: all pods share the "
        "log, and removing them all from the Service helps nobody.",
    )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read the settings from a Flask app's configuration and the file that its SSE_CONFIG_FILE names.

        Reads only keys that begin with ``SSE_`` or ``HEALTH_``, because ``HOST`` or ``LOG_LEVEL`` may be the app's own,
        and ignores unknown ones. A value may be text, as in the environment, or have the setting's type.

        Raises SettingsError, with one line for each invalid setting.
        """
        known = _MappingSettings.names()
        given = {known[key]: value for key, value in config.items() if key in known}
        return _MappingSettings.read(given, named_file(config.get(FILE_SETTING)))

    @property
    def bind(self) -> str:
        """The main listener as gunicorn writes it, ``address:port``."""
        return _address(self.host, self.port)

    @property
    def health_bind(self) -> str:
        """The health listener, likewise."""
        return _address(self.host, self.health_port)

    @property
    def graceful_timeout(self) -> int:
        """Seconds from SIGTERM until gunicorn kills a worker: the whole drain, or the runs' grace, and a margin."""
        return math.ceil(max(self.sse_drain_delay + self.sse_drain_window, self.sse_run_grace)) + DRAIN_MARGIN

    @property
    def termination_grace(self) -> int:
        """The least ``terminationGracePeriodSeconds`` of a manifest."""
        return self.graceful_timeout + KILL_MARGIN


class _MappingSettings(Settings):
    """The settings without the environment."""

    reads_environment: ClassVar[bool] = False

    @classmethod
    def names(cls) -> dict[str, str]:
        return {name: field for name, field in super().names().items() if name.startswith(PREFIXES)}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
