"""Python clients as a user would write them: ``python python_clients.py NAME URL`` prints one JSON line for each event.

The libraries that only parse are given the loop that their documentation leaves to the user: connect, remember the
last id, wait, connect again with ``Last-Event-ID``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

FIRST_RETRY = 1.0   # seconds, until the server says otherwise


class Event(NamedTuple):
    type: str
    data: str
    id: str | None
    retry: int | None


def emit(event: Event) -> None:
    print(json.dumps(event._asdict()), flush=True)


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


def with_requests(url: str, headers: dict[str, str]) -> Iterator[Event]:
    import requests
    from sseclient import SSEClient

    with requests.get(url, headers=headers, stream=True, timeout=(5, 60)) as response:
        response.raise_for_status()
        for event in SSEClient(response).events():
            yield Event(event.event, event.data, event.id, event.retry and int(event.retry))


def with_httpx(url: str, headers: dict[str, str]) -> Iterator[Event]:
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:
        with connect_sse(client, "GET", url, headers=headers) as source:
            for event in source.iter_sse():
                yield Event(event.event, event.data, event.id, event.retry)


def resuming(connect: Callable[[str, dict[str, str]], Iterator[Event]], url: str, retry: float = FIRST_RETRY) -> None:
    """The user's loop around a library that does not reconnect."""
    last = ""
    while True:
        try:
            for event in connect(url, {"Last-Event-ID": last} if last else {}):
                last = event.id or last
                retry = retry if event.retry is None else event.retry / 1000
                if event.data:
                    emit(event)
        except Exception as error:  # each library has its own ways to say that the connection is gone
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        time.sleep(retry)


async def with_aiohttp(url: str) -> None:
    """Reconnects by itself after a clean end; a cut or a refused connection it raises, hence the loop."""
    from aiohttp_sse_client2.client import EventSource

    last = ""
    while True:
        try:
            async with EventSource(url, headers={"Last-Event-ID": last} if last else {}) as source:
                async for event in source:
                    last = event.last_event_id or last
                    emit(Event(event.type or "message", event.data, event.last_event_id, None))
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    name, target = sys.argv[1:]
    if name == "aiohttp-sse-client2":
        asyncio.run(with_aiohttp(target))
    else:
        # What sseclient-py does not tell (it has no event for a block without data) is left to the user: the wait.
        how = {"curl -N": with_curl, "requests + sseclient-py": with_requests, "httpx-sse": with_httpx}[name]
        resuming(how, target, 0.3 if how is with_requests else FIRST_RETRY)
