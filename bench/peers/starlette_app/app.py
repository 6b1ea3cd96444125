"""sse-starlette as its README shows it: a queue per client, and an EventSourceResponse over it."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

clients: defaultdict[str, set[asyncio.Queue[ServerSentEvent]]] = defaultdict(set)
ids = itertools.count(1)


async def healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def publish(request: Request) -> Response:
    number = next(ids)
    event = ServerSentEvent(data=(await request.body()).decode(), id=str(number))
    for queue in clients[request.path_params["channel"]]:
        queue.put_nowait(event)
    return JSONResponse({"id": number}, 201)


async def events(request: Request) -> Response:
    queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    members = clients[request.path_params["channel"]]
    members.add(queue)

    async def stream() -> AsyncIterator[ServerSentEvent]:
        try:
            while True:
                yield await queue.get()
        finally:
            members.discard(queue)

    return EventSourceResponse(stream(), ping=15)


app = Starlette(
    routes=[
        Route("/healthz", healthz),
        Route("/events/{channel}", events),
        Route("/events/{channel}", publish, methods=["POST"]),
    ]
)
