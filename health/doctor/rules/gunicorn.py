"""HW30x: gunicorn's workers, pools and limits."""

from __future__ import annotations

from collections.abc import Iterator

from ..finding import BREAKS, NOTE, RISKS, Change, Found, rule
from ..model import Model
from ..servers import Option, Server
from ..units import count, memory, say
from ..workloads import STARTUP, Container
from .pools import pool


def option_change(option: Option | None, value: str, why: str) -> tuple[Change, ...]:
    """A change of an option's value on the command line; nothing where it stands in a script or a file."""
    if option is None or option.index is None or option.index < 0:
        return ()
    return (Change(option.place.get(option.index), option.prefix + value, why),)


def probe_rate(container: Container) -> tuple[float, str]:
    """HTTP probes a second once the pod has started, and the sum that says so."""
    periods = [probe.period for probe in container.probes.values() if probe.action == "http" and probe.kind != STARTUP]
    return sum(1 / period for period in periods), " + ".join(f"1/{period}" for period in periods)


def gunicorns(model: Model) -> Iterator[tuple[Container, Server, str]]:
    """Each gunicorn and its worker class, "" if it cannot be seen."""
    for container in model.containers:
        server = model.server(container)
        if server.name != "gunicorn":
            continue
        kind = server.get("worker-class")
        if kind is None and server.settled:
            kind = "gthread" if (server.number("threads") or 1) > 1 else "sync"
        yield container, server, (kind or "").lower()


@rule("HW301", "sync-worker", BREAKS, 1)
def sync_worker(model: Model) -> Iterator[Found]:
    """gunicorn's sync workers: each holds one stream and nothing else, and is killed after `timeout`.

    Source: gunicorn, "Design", "Sync Workers": "handles a single request at a time"; "Settings", timeout: "Workers
    silent for more than this many seconds are killed and restarted" (30), which for a sync worker is one request's
    time.
    """
    for container, server, kind in gunicorns(model):
        if kind != "sync" or ("worker-class" not in server.options and not container.words):
            continue
        timeout = server.number("timeout", 30.0) or 0
        number = server.workers
        held = (
            "each stream takes one"
            if server.unclear("workers")
            else f"{count(number, 'stream')} fill {count(number, 'worker')}"
        )
        held = held.replace("1 stream fill", "1 stream fills")
        cut = f", and a stream is killed after --timeout {timeout:g} s" if timeout else ""
        cut += "" if "worker-class" in server.options else " (assumed: no gunicorn.conf.py in the image says otherwise)"
        yield Found(
            server.options["worker-class"].place if "worker-class" in server.options else server.place,
            f"a sync worker holds one request: {held}, and then nobody is served, not even probes{cut}",
            advice="Use an asynchronous worker: `-k gevent` (the image must have gevent), or an ASGI server.",
        )


@rule("HW302", "small-thread-pool", BREAKS, 1)
def small_thread_pool(model: Model) -> Iterator[Found]:
    """Each stream holds a thread, and there are few.

    Source: gunicorn, "Settings", threads: "The number of worker threads for handling requests"; waitress, "Arguments",
    threads: "default 4"; Puma README, "Thread Pool"; uWSGI, "Options", threads; uvicorn, "Settings",
    --limit-concurrency: "Maximum number of concurrent connections or tasks to allow, before issuing HTTP 503
    responses."
    """
    for container in model.containers:
        server = model.server(container)
        if server.name == "gunicorn" and (server.get("worker-class") or "gthread").lower() != "gthread":
            continue
        if server.name == "uvicorn" and (limit := server.number("limit-concurrency")) is not None:
            size, said, name = int(limit) * server.workers, f"--limit-concurrency {limit:g}", "limit-concurrency"
        else:
            found = pool(model, container)
            if found is None or "sync worker" in found[1] or "worker_connections" in found[1]:
                continue
            size, said = found
            name = "threads"
        option = server.options.get(name)
        if size >= 500:
            continue
        yield Found(
            option.place if option else server.place,
            f"{said}: {count(size, 'stream')} fill it, and then nobody is served, not even probes"
            + (" (they get 503)" if name == "limit-concurrency" else ""),
            severity=BREAKS if size < 50 else RISKS,
            advice="Serve streams by an event loop (gevent, ASGI), or size the pool for all streams and put probes"
            " elsewhere.",
        )


@rule("HW303", "small-connection-pool", RISKS, 1)
def small_connection_pool(model: Model) -> Iterator[Found]:
    """worker_connections is set to few, and each stream holds one.

    Source: gunicorn, "Settings", worker_connections: "The maximum number of simultaneous clients" (1000).
    """
    for _, server, kind in gunicorns(model):
        option = server.options.get("worker-connections")
        if option is None or not ("gevent" in kind or "eventlet" in kind) or "sse.worker" in kind:
            continue
        size = server.number("worker-connections", 1000)
        if size is None or size >= 500 or server.unclear("workers"):
            continue
        yield Found(
            option.place,
            f"{server.workers} × worker_connections {size:g} = {server.workers * size:g} streams fill the pool: then"
            " the worker stops accepting, and the next client, or probe, waits until one leaves",
            option_change(option, "2000", "Above the number of streams a pod is to hold."),
        )


@rule("HW304", "max-requests", RISKS, 9)
def max_requests(model: Model) -> Iterator[Found]:
    """A worker is replaced after so many requests, and with it go its streams; probes count, too.

    Source: gunicorn, "Settings", max_requests: "The maximum number of requests a worker will process before
    restarting"; uvicorn, "Settings", --limit-max-requests: "Maximum number of requests to service before terminating
    the process".
    """
    for container in model.containers:
        server = model.server(container)
        if server.name == "gunicorn":
            yield from _gunicorn_max_requests(container, server)
        elif server.name == "uvicorn":
            yield from _uvicorn_max_requests(container, server)
        elif server.name == "hypercorn" and (option := server.options.get("max-requests")) and option.value != "0":
            yield Found(
                option.place, f"--max-requests {option.value}: a worker that has reached it ends, and tears its streams"
            )


def _alone(container: Container, limit: float, workers: int) -> str:
    rate, terms = probe_rate(container)
    if not rate:
        return ""
    each = rate / workers
    over = f" over {workers} workers = {each:g}/s" if workers > 1 else f" = {each:g}/s"
    return (
        f"; the probes alone reach it: {terms} a second{over}, {limit:g} / {each:g} = {round(limit / each)} s, every"
        f" {say(limit / each)} without one user"
    )


def _gunicorn_max_requests(container: Container, server: Server) -> Iterator[Found]:
    option = server.options.get("max-requests")
    limit = server.number("max-requests", 0) or 0
    if option is None or limit <= 0 or "sse.worker" in (server.get("worker-class") or ""):
        return
    timeout = server.number("timeout", 30.0) or 0.0
    graceful = server.number("graceful-timeout", 30.0) or 0.0
    uvicorn = "uvicorn" in (server.get("worker-class") or "").lower()
    end = (
        f"is aborted with all of them after --timeout {timeout:g}"
        if uvicorn
        else f"ends with all of them after --graceful-timeout {graceful:g}"
    )
    yield Found(
        option.place,
        f"--max-requests {limit:g}: a worker that has reached it takes no new clients, waits for streams that never"
        " end, and"
        f" {end} s" + _alone(container, limit, server.workers),
        option_change(option, "0", "0: never. A worker that is replaced takes its streams with it; probes count, too."),
    )


def _uvicorn_max_requests(container: Container, server: Server) -> Iterator[Found]:
    option = server.options.get("limit-max-requests")
    limit = server.number("limit-max-requests", 0) or 0
    if option is None or limit <= 0:
        return
    what = "its process ends, and with one process that is the container" if server.workers == 1 else "a process ends"
    yield Found(
        option.place,
        f"--limit-max-requests {limit:g}: then {what}; open streams are torn, or hold up the end while nobody is let in"
        + _alone(container, limit, server.workers),
        _without(option),
        severity=BREAKS if server.workers == 1 else RISKS,
        advice="" if _without(option) else "Leave it out; there is no value for `never`.",
    )


def _without(option: Option) -> tuple[Change, ...]:
    """The list of words without the option."""
    if option.index is None or option.index < 0:
        return ()
    words = [item.text for item in option.place.items()]
    del words[option.index if option.prefix else option.index - 1 : option.index + 1]
    return (
        Change(option.place, words, "Without a limit of requests: probes count towards it, and streams end with it."),
    )


@rule("HW305", "memory-for-the-pool", NOTE, 8)
def memory_for_the_pool(model: Model) -> Iterator[Found]:
    """The pool is larger than the memory limit has room for.

    Source: measured, docs/benchmarks.md: a gevent stream takes 20 KB and more without its buffers; the sum assumes 30
    KB a connection and 60 MB a worker.
    """
    for container, server, kind in gunicorns(model):
        limit = memory(container.limit("memory").text)
        size = int(server.number("worker-connections", 0) or 0)
        if not limit or not size or server.unclear("workers") or not ("gevent" in kind or "eventlet" in kind):
            continue
        need = server.workers * (60e6 + size * 30e3)
        if need > limit:
            yield Found(
                container.limit("memory"),
                f"{server.workers} workers × (60 MB + worker_connections {size} × 30 KB) = {need / 1e6:.0f} MB, more"
                f" than the limit of {limit / 1e6:.0f} MB: full, it is OOMKilled with all streams (assumed: 30 KB a"
                " stream)",
            )
