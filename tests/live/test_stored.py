"""A publisher is never told "nothing was stored" of an event that was stored."""

from __future__ import annotations

from typing import Any

import pytest

from sse.settings import Settings
from sse.web.openapi import describe
from tests.support.redis_server import RedisServer
from tests.support.server import Server
from tests.support.sse_client import SSEClient
from tests.support.wait import eventually


def refused(server: Server, key: str | None, body: bytes = b"x") -> dict[str, Any]:
    answer = server.request("POST", "/events/a", body, {"Idempotency-Key": key} if key else {})
    assert answer.status == 503 and answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    problem: dict[str, Any] = answer.json()
    return problem


def test_a_publish_that_no_replica_confirms_is_unknown_and_its_repeats_are_seen_once() -> None:
    with RedisServer(repl_diskless_sync_delay=0) as redis, Server(SSE_LOG=f"{redis.url}?replicas=1") as server:
        with SSEClient(server.port, "/events/a") as subscriber:
            for _ in range(3):
                problem = refused(server, "order-1")
                assert problem["stored"] == "unknown", problem
                assert "nothing was stored" not in problem["detail"] and "Idempotency-Key" in problem["detail"]
            first = subscriber.next_message()
            with RedisServer(replicaof=f"127.0.0.1 {redis.port}"):
                ids: list[str] = []

                def confirmed() -> bool:
                    answer = server.request("POST", "/events/a", b"x", {"Idempotency-Key": "order-1"})
                    ids.extend([answer.json()["id"]] if answer.status == 201 else [])
                    return answer.status == 201

                eventually(confirmed, 10)
                assert ids == [first.id]
                after = server.request("POST", "/events/a", b"last", {"Idempotency-Key": "order-2"}).json()["id"]
            assert subscriber.next_message().id == after, "seen twice"


def test_a_publish_while_redis_is_away_was_not_stored() -> None:
    with RedisServer() as redis, Server(SSE_LOG=redis.url) as server:
        redis.kill()
        refused(server, None)  # its connection may break under it
        problem = refused(server, None)
        assert problem["stored"] == "no" and "nothing was stored" in problem["detail"]


@pytest.mark.parametrize("path", ["/events/{channel}", "/events"])
def test_openapi_describes_the_stored_field(path: str) -> None:
    api = describe(Settings())
    content = api["paths"][path]["post"]["responses"]["503"]["content"]["application/problem+json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    (_, own) = api["components"]["schemas"][name]["allOf"]
    assert own["properties"]["stored"]["enum"] == ["no", "unknown"] and own["required"] == ["stored"]
