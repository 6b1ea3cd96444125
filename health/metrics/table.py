"""The metrics that ``health.metrics.exporter`` exports. A test compares this table with docs/metrics.md."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]


class Row(NamedTuple):
    """One metric of the workers' own numbers.

    attribute: its name in the source's ``stats``, which holds a number, a mapping label → number, or a
    ``health.metrics.exporter.HistogramState``; label: the name of its label, or empty; known: that label's values,
    which are exported from the start; merge: how the workers' values of a gauge become the pod's.
    """

    name: str
    kind: Kind
    attribute: str
    help: str
    label: str = ""
    known: tuple[str, ...] = ()
    merge: Literal["sum", "min", "max"] = "sum"


# The values of labels. health does not import sse, so tests/health/metrics/test_docs.py compares these with sse's.
STREAM_STATES: Final = ("opening", "replaying", "live", "lagging", "ending", "lingering")
CONNECTION_STATES: Final = ("new", "active", "idle", "stream")
CLOSE_REASONS: Final = (
    "client",
    "reset",
    "write-timeout",
    "fell-behind",
    "replaced",
    "flooded",
    "erased",
    "ended",
    "revoked",
    "drain",
    "cut",
    "lease",
    "token",
    "done",
    "error",
)
REFUSALS: Final = ("drain", "streams", "threads", "streams-per-ip", "token", "log")
PUBLISH_REFUSALS: Final = (
    "key",
    "token",
    "origin",
    "closed",
    "app",
    "invalid",
    "rate",
    "size",
    "conflict",
    "ended",
    "log",
    "error",
)
RUN_STATES: Final = ("starting", "running")
RUN_ENDS: Final = ("done", "stopped", "error", "lost")
RESETS: Final = ("expired", "before-log", "malformed", "unknown", "too-far")
CONNECTION_CLOSINGS: Final = (
    "read-header-timeout",
    "read-timeout",
    "write-timeout",
    "idle-timeout",
    "bad-request",
    "error",
    "keepalive-requests",
    "evicted",
)

ROWS: Final = (
    Row("sse_streams", "gauge", "streams", "Open streams, by state.", "state", STREAM_STATES),
    Row("sse_streams_opened_total", "counter", "opened", "Streams that were opened."),
    Row(
        "sse_streams_closed_total", "counter", "closed", "Streams that ended, by reason.", "reason", CLOSE_REASONS
    ),
    Row(
        "sse_streams_refused_total", "counter", "refused", "Streams refused with 200 and retry.", "reason", REFUSALS
    ),
    Row("sse_events_published_total", "counter", "published", "Events that the log acknowledged."),
    Row(
        "sse_publishes_refused_total",
        "counter",
        "publishes_refused",
        "Publish requests that were refused, by reason.",
        "reason",
        PUBLISH_REFUSALS,
    ),
    Row("sse_events_delivered_total", "counter", "delivered", "Events handed to streams' sockets."),
    Row("sse_bytes_sent_total", "counter", "bytes_sent", "Bytes of events that the kernel took."),
    Row("sse_gzip_text_bytes_total", "counter", "gzip_text", "Bytes of events that were sent compressed, before that."),
    Row("sse_gzip_sent_bytes_total", "counter", "gzip_sent", "Bytes that these events were compressed to."),
    Row("sse_resets_total", "counter", "resets", "stream-reset events, by reason.", "reason", RESETS),
    Row("sse_replayed_events_total", "counter", "replayed", "Events sent again to clients that resumed."),
    Row("sse_delivery_seconds", "histogram", "delivery", "From append to written, by event and group of streams."),
    Row("sse_fanout_pass_seconds", "histogram", "passes", "One pass of the fan-out over a group's streams."),
    Row(
        "sse_connections",
        "gauge",
        "connections",
        "Open connections of the main listener, by state.",
        "state",
        CONNECTION_STATES,
    ),
    Row(
        "sse_connections_closed_total",
        "counter",
        "connections_closed",
        "Connections that the server closed, by reason.",
        "reason",
        CONNECTION_CLOSINGS,
    ),
    Row("sse_runs", "gauge", "runs", "Runs that have not ended, by state.", "state", RUN_STATES),
    Row("sse_runs_ended_total", "counter", "runs_ended", "Runs that ended, by state.", "state", RUN_ENDS),
    Row("sse_run_seconds", "histogram", "run_seconds", "From a run's start to its end."),
    Row("sse_run_items_total", "counter", "run_items", "Items of runs that the log acknowledged."),
    Row("sse_log_bytes", "gauge", "log_bytes", "Bytes that the log takes.", merge="max"),
    Row("sse_log_free_bytes", "gauge", "log_free", "Bytes that the log has room for.", merge="min"),
    Row(
        "sse_log_oldest_timestamp_seconds",
        "gauge",
        "log_oldest",
        "Time of the oldest event that the log holds, unix time; 0 if there is none.",
        merge="max",
    ),
    Row("sse_settings_refused", "gauge", "settings_refused", "Workers whose settings file cannot be used."),
)

# From the board, one sample for each worker. The label is its slot and not its process id, so there are few values.
BOARD_ROWS: Final = {
    "sse_log_tail_age_seconds": "Since the log last answered this worker's tailer.",
    "health_loop_lag_seconds": "Longest event-loop lag of the last ten seconds, the present one included.",
    "health_canary_age_seconds": "Since this worker last delivered an event, or since it began.",
    "health_workers": "Workers of the present generation, by state.",
    "health_workers_expected": "Workers that gunicorn is told to keep.",
}

# From each process of the pod at the moment of the scrape, and of the build.
PROCESS_ROWS: Final = {
    "process_cpu_seconds_total": "User and system time of a process, in seconds.",
    "process_resident_memory_bytes": "Memory of a process in RAM; pages that processes share count in each.",
    "process_virtual_memory_bytes": "Address space of a process.",
    "process_open_fds": "Open file descriptors of a process; each stream has one.",
    "process_max_fds": "The most file descriptors that a process may open.",
    "process_start_time_seconds": "When a process began, unix time.",
    "headwater_build_info": "1; the labels are the versions.",
}
