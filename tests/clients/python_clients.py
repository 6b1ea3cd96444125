"""Python clients as a user would write them: ``python python_clients.py NAME URL NAME URL …`` prints one JSON line for
each event of each of them.

The libraries that only parse are given the loop that their documentation leaves to the user: connect, remember the
last id, wait, connect again with ``Last-Event-ID``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import NamedTuple

FIRST_RETRY = 1.0   # seconds, until the server says otherwise


class Event(NamedTuple):
    type: str
    data: str
    id: str | None
    retry: int | None


Emit = Callable[[Event], None]
Connect = Callable[[str, dict[str, str]], Iterator[Event]]
_printing = threading.Lock()


def emit_as(client: str, event: Event) -> None:
    with _printing:
        print(json.dumps({"client": client, "type": event.type, "data": event.data, "id": event.id}), flush=True)


def complain(client: str, error: Exception) -> None:
    print(f"{client}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def with_curl(url: str, headers: dict[str, str]) -> Iterator[Event]:
    """`curl -N`, whose output is parsed here; it knows neither ids nor retry."""
    from tests.support.sse_parser import EventParser

    options = [option for name, value in headers.items() for option in ("-H", f"{name}: {value}")]
    parser = EventParser()
    with subprocess.Popen(["curl", "-sN", *options, url], stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        while octets := process.stdout.read(65536):
            for block in parser.feed(octets):
                yield Event(block.event or "message", block.data or "", block.id, block.retry)


def with_sseclient(url: str, headers: dict[str, str]) -> Iterator[Event]:
    import requests
    from sseclient import SSEClient

    with requests.get(url, headers=headers, stream=True, timeout=(5, 60)) as response:
        response.raise_for_status()
        for event in SSEClient(response).events():
            yield Event(event.event, event.data, event.id, event.retry and int(event.retry))


def with_httpx_sse(url: str, headers: dict[str, str]) -> Iterator[Event]:
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:
        with connect_sse(client, "GET", url, headers=headers) as source:
            for event in source.iter_sse():
                yield Event(event.event, event.data, event.id, event.retry)


def with_openai(url: str, headers: dict[str, str]) -> Iterator[Event]:
    """The openai package's decoder for its own streams."""
    import requests
    from openai._streaming import SSEDecoder

    with requests.get(url, headers=headers, stream=True, timeout=(5, 60)) as response:
        response.raise_for_status()
        for event in SSEDecoder().iter_bytes(response.iter_content(chunk_size=None)):
            yield Event(event.event or "message", event.data, event.id, event.retry)


def resuming(connect: Connect, client: str, url: str, emit: Emit) -> None:
    """The user's loop around a library that does not reconnect."""
    last, retry = "", FIRST_RETRY
    while True:
        try:
            for event in connect(url, {"Last-Event-ID": last} if last else {}):
                last = event.id or last
                retry = retry if event.retry is None else event.retry / 1000
                if event.data:
                    emit(event)
        except Exception as error:  # each library reports a lost connection in its own way
            complain(client, error)
        time.sleep(retry)


def launchdarkly(client: str, url: str, emit: Emit) -> None:
    """Reconnects, even after a refused connection, if told to."""
    from ld_eventsource import SSEClient
    from ld_eventsource.config import ErrorStrategy, RetryDelayStrategy

    # Without its jitter and back-off, so that its delay is known.
    delay = RetryDelayStrategy.default(backoff_multiplier=1, jitter_multiplier=0)
    source = SSEClient(
        url, FIRST_RETRY, retry_delay_strategy=delay, error_strategy=ErrorStrategy.always_continue()
    )
    for event in source.events:
        emit(Event(event.event, event.data, event.last_event_id, None))


def requests_sse(client: str, url: str, emit: Emit) -> None:
    """Reconnects; after five failed attempts it raises, hence the loop."""
    from requests_sse import EventSource

    last = ""
    while True:
        try:
            with EventSource(url, timeout=60, latest_event_id=last) as source:
                for event in source:
                    last = event.last_event_id or last
                    emit(Event(event.type or "message", event.data or "", event.last_event_id, None))
        except Exception as error:
            complain(client, error)
        time.sleep(0.5)


def aiohttp_sse_client(client: str, url: str, emit: Emit) -> None:
    """Reconnects after a clean end; it raises for a cut or refused connection, hence the loop."""
    from aiohttp_sse_client2.client import EventSource

    half_a_second = timedelta(seconds=0.5)  # its own five would be ten: it doubles them

    async def listen() -> None:
        last = ""
        while True:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                async with EventSource(url, headers=headers, reconnection_time=half_a_second) as source:
                    async for event in source:
                        last = event.last_event_id or last
                        emit(Event(event.type or "message", event.data, event.last_event_id, None))
            except Exception as error:
                complain(client, error)
            await asyncio.sleep(0.5)

    asyncio.run(listen())


CLIENTS: dict[str, Callable[[str, str, Emit], None]] = {
    "curl -N": partial(resuming, with_curl),
    "requests + sseclient-py": partial(resuming, with_sseclient),
    "httpx-sse": partial(resuming, with_httpx_sse),
    "openai's decoder": partial(resuming, with_openai),
    "launchdarkly-eventsource (Python)": launchdarkly,
    "requests-sse": requests_sse,
    "aiohttp-sse-client2": aiohttp_sse_client,
}

if __name__ == "__main__":
    asked = sys.argv[1:]
    for name, target in zip(asked[::2], asked[1::2], strict=True):
        arguments = (name, target, partial(emit_as, name))
        threading.Thread(target=CLIENTS[name], args=arguments, name=name).start()
