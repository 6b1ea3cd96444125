"""The service answers any request to an operation of /openapi.json with a response that it describes."""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from urllib.parse import quote

import jsonschema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hardening.wire import exchange, replies, request
from tests.support.server import Server

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUE = TEXT | st.integers().map(str) | st.sampled_from(["a", "orders", "5", "0-0", "earliest", "_canary", "heartbeat", ""])
#: Long waits would take long.
WAIT = st.sampled_from(["0", "61", "-1", "x", ""])
#: The characters that a header can carry; the parser refuses others.
FIELD = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)
BODY = st.binary(max_size=60) | st.sampled_from([b"", b'{"channel":"a","data":"x"}', b'{"channel":"a"}\n\n[]'])


@cache
def description(server: Server) -> Any:
    """The server's own description."""
    return server.request("GET", "/openapi.json").json()


@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_response_is_one_that_the_description_has(open_server: Server, data: st.DataObject) -> None:
    api = description(open_server)
    path = data.draw(st.sampled_from(sorted(api["paths"])))
    method = data.draw(st.sampled_from(sorted(api["paths"][path])))
    operation = api["paths"][path][method]
    target, query, lines = path, [], ["Connection: close"]
    for parameter in operation["parameters"]:
        name = parameter["name"]
        if parameter["in"] == "path":
            target = target.replace(f"{{{name}}}", quote(data.draw(VALUE.filter(lambda text: text not in ("", ".", "..")), name), safe=""))
        elif parameter["in"] == "query":
            # An object stands for its members, each a parameter of its own.
            for member in parameter["schema"].get("properties", [name]):
                values = data.draw(st.lists(WAIT if member == "wait" else VALUE, max_size=2), member)
                query += [f"{quote(member)}={quote(value, safe='')}" for value in values]
        elif data.draw(st.booleans()):
            lines.append(f"{name}: {data.draw(FIELD, name)}")
    if method == "get" and data.draw(st.booleans()):
        lines.append(f"Accept: {data.draw(st.sampled_from(['application/json', 'text/event-stream', 'text/html']))}")
    body = b""
    if method == "post":
        body = data.draw(BODY)
        kinds = operation.get("requestBody", {}).get("content", ())
        kind = data.draw(st.sampled_from([*kinds, "text/plain"])).replace("*/*", "a/b")
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    octets = request(f"{target}?{'&'.join(query)}", *lines, method=method.upper(), body=body)
    answer = exchange(open_server.port, octets)
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
    status = head.split(" ")[1]
    if "%2f" in target.lower() and status == "404":
        return  # an encoded slash makes it another path
    assert status in operation["responses"], (octets, answer[:300])
    content = operation["responses"][status].get("content")
    if content is None:
        assert answer.endswith(b"\r\n\r\n") and "content-type" not in head
        return
    (content_type,) = [one for one in content if f"content-type: {one}" in head]
    if content_type.endswith("json"):
        (reply,) = replies(answer)
        schema = {**operation["responses"][status]["content"][content_type]["schema"], "components": api["components"]}
        jsonschema.validate(json.loads(reply.body), schema)
