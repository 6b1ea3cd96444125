"""The API's description says what this service's settings allow, and where a credential may stand."""

from __future__ import annotations

from typing import Any

from sse.settings import Settings
from sse.web.openapi import describe


def described(**settings: Any) -> dict[str, Any]:
    return describe(Settings.from_mapping({"SSE_LOG": "memory:", **settings}))


def test_limits_are_those_of_the_settings() -> None:
    said = described(SSE_MAX_CHANNELS=7, SSE_MAX_EVENT_BYTES=1234, SSE_MAX_BATCH_EVENTS=9, SSE_MAX_BATCH_BYTES=4321)
    (channels,) = [one for one in said["paths"]["/events"]["get"]["parameters"] if one["name"] == "channel"]
    assert channels["schema"]["maxItems"] == 7
    text = str(said["paths"])
    for limit in ("1234", "4321", "9"):
        assert limit in text


def test_a_token_in_the_url_is_for_reading_only() -> None:
    said = described()
    methods = {method for path in said["paths"].values() for method in path}
    assert methods == {"get", "post", "delete"}
    for path in said["paths"].values():
        for method, operation in path.items():
            assert ({"query": []} in operation.get("security", said["security"])) == (method == "get")
    schemes = said["components"]["securitySchemes"]
    assert (schemes["query"]["name"], schemes["cookie"]["name"]) == ("access_token", "sse_token")
