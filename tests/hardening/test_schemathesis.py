"""schemathesis against a live service: it serves what /openapi.json allows, refuses the rest, and every response is one
that the description has.

Streams never end, so the client reads the first block and leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sse.events.model import CONTROL_EVENTS
from tests.hardening.wire import alive
from tests.support.server import Server

NDJSON = "application/x-ndjson"
OPERATIONS = (
    "GET /events",
    "GET /events/{channel}",
    "POST /events",
    "POST /events/{channel}",
    "DELETE /events/{channel}",
    "GET /channels",
    "DELETE /streams",
    "GET /runs",
    "GET /runs/{run}",
    "POST /runs/{run}/stop",
)

SAID = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_MODE = {GenerationMode.POSITIVE: positive_data_acceptance, GenerationMode.NEGATIVE: negative_data_rejection}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
EVENT = st.fixed_dictionaries(
    {
        "channel": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,9}", fullmatch=True),
        "data": st.recursive(
            st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5
        ),
    },
    optional={
        "event": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=9)
        .filter(lambda kind: kind not in CONTROL_EVENTS),
        "retry": st.integers(0, 2**31 - 1),
        "close": st.just(False),  # true would be in the way of later lines
    },
)
schemathesis.openapi.media_type(
    NDJSON, st.lists(EVENT, min_size=1, max_size=4).map(lambda events: "\n".join(map(json.dumps, events)).encode())
)


@schemathesis.serializer(NDJSON)
def _as_it_is(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def small_server() -> Iterator[Server]:
    """A server that allows few channels per stream, because schemathesis takes long to invent 64 names."""
    with Server(SSE_MAX_CHANNELS=4) as running:
        yield running
        alive(running)


@cache
def described(server: Server) -> Any:
    """The service's description."""
    return schemathesis.openapi.from_dict(server.request("GET", "/openapi.json").json())


def answered(case: Any, server: Server) -> Response:
    """Return the response; for a stream, its first block."""
    sent = case.as_transport_kwargs(server.url("").rstrip("/"))
    with requests.request(**sent, stream=True, timeout=5, allow_redirects=False) as answer:
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            answer._content = next(answer.iter_content(None))
            assert answer._content.startswith((b"id: ", b": "))  # the latter is the opening of a plain stream
        else:
            answer.content  # noqa: B018  # reads it
        return Response.from_requests(answer, verify=True)


def hold(server: Server, label: str, mode: GenerationMode, examples: int) -> None:
    """Send this many requests to an operation."""
    (operation,) = [found.ok() for found in described(server).get_all_operations() if found.ok().label == label]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        answer = answered(case, server)
        # By chance, the same key with another body, which no schema could exclude.
        reused = mode is GenerationMode.POSITIVE and answer.status_code == 422
        case.validate_response(answer, checks=SAID if reused else [*SAID, OF_MODE[mode]])

    holds()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_the_service_does_what_its_description_says(small_server: Server, label: str, mode: GenerationMode) -> None:
    hold(small_server, label, mode, 10)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_the_service_does_what_its_description_says_at_length(
    small_server: Server, label: str, mode: GenerationMode
) -> None:
    hold(small_server, label, mode, 200)


def test_every_operation_is_tried(small_server: Server) -> None:
    assert sorted(found.ok().label for found in described(small_server).get_all_operations()) == sorted(OPERATIONS)
