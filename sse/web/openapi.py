"""The API's description for ``GET /openapi.json``, in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from ..auth.bearer import PUBLISHING_SCHEMES, SCHEMES
from ..events.model import CHANNEL_PATTERN, CONTROL_EVENTS, MAX_RETRY_MS, MAX_TYPE_CHARS
from ..events.wire import RESET_REASONS
from ..log.base import STORED
from ..settings import Settings
from ..version import VERSION
from .publishing import KEY_PATTERN

PROBLEM = "application/problem+json"

# In a path or query; names beginning with "_" are reserved and refused with 400.
_CHANNEL = {"type": "string", "pattern": f"^{CHANNEL_PATTERN.pattern}$", "examples": ["orders", "user:17"]}
# An event's type: one line.
_TYPE = {"type": "string", "pattern": r"^[^\r\n\x00]+$", "minLength": 1, "maxLength": MAX_TYPE_CHARS}
_RETRY = {"type": "integer", "minimum": 0, "maximum": MAX_RETRY_MS}
_ID = {"type": "string", "pattern": "^[0-9]+-[0-9]+$", "examples": ["1732345678901-0"]}


def _problems(*statuses: int) -> dict[str, Any]:
    texts = {
        400: "The request is invalid; `detail` names the field and the limit.",
        401: "A token is missing, malformed or expired (`WWW-Authenticate`).",
        403: "Not allowed; `detail` says what is.",
        406: "`Accept` excludes text/event-stream.",
        408: "The body did not arrive in time.",
        413: "Larger than a setting allows; `limit` is its value.",
        415: "A batch is application/x-ndjson.",
        422: "This Idempotency-Key was used with another body.",
        429: "More publishes than the key's rate (`Retry-After`).",
        503: "The log cannot be written now (`stored` is `no`), or did not confirm in time (`unknown`). Retry after "
        "`Retry-After`; with the same `Idempotency-Key` that is safe in both cases.",
    }
    schemas = {s: {"$ref": f"#/components/schemas/{'NotStored' if s == 503 else 'Problem'}"} for s in statuses}
    return {str(s): {"description": texts[s], "content": {PROBLEM: {"schema": schemas[s]}}} for s in statuses}


def _query(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _header(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": text}


def _path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _security(*, reading: bool) -> list[dict[str, list[str]]]:
    named: list[dict[str, list[str]]] = [{one.name: []} for one in (SCHEMES if reading else PUBLISHING_SCHEMES)]
    return [{}, *named]


def _stream_operation(extra: list[dict[str, Any]]) -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "summary": "Stream events",
        "description": "Opens with a `heartbeat` that has `id:` and `retry:`; `heartbeat` and `stream-reset` "
        f"({', '.join(RESET_REASONS)}) are control events.",
        "security": _security(reading=True),
        "parameters": [
            *extra,
            _header("Last-Event-ID", text, "Resume after this id. Wins over the query."),
            _query("lastEventId", text, "The same, for clients that cannot set headers; also `last_event_id`."),
            _query("since", text, "History: an id, unix milliseconds, or `earliest`."),
            _query("event", {"type": "array", "items": {**text, "minLength": 1}}, "Keep only these types; repeatable."),
        ],
        "responses": {
            "200": {
                "description": "A stream; if there is no room now, only its opening and a clean end.",
                "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}},
            },
            **_problems(400, 401, 403, 406),
        },
    }


def describe(settings: Settings) -> dict[str, Any]:
    """Return the description, with the limits of these settings."""
    created = {
        "type": "object",
        "properties": {"id": _ID, "channel": _CHANNEL},
        "required": ["id", "channel"],
    }
    key = _header(
        "Idempotency-Key",
        {"type": "string", "pattern": f"^{KEY_PATTERN.pattern}$"},
        "A repeated publish to the same channels stores nothing; with another body it is refused (422).",
    )
    trace = _header("traceparent", {"type": "string"}, "W3C Trace Context. When sampled, deliveries are logged.")
    publish = {
        "summary": "Publish one event: the body is its data, verbatim",
        "parameters": [
            _query("event", {**_TYPE, "not": {"enum": sorted(CONTROL_EVENTS)}}, "The event's type."),
            _query("retry", _RETRY, "The clients' reconnection time, milliseconds."),
            key,
            trace,
        ],
        "requestBody": {
            "description": f"UTF-8 text of any content type; at most {settings.sse_max_event_bytes} bytes.",
            "content": {"*/*": {}},
        },
        "responses": {
            "201": {"description": "The log holds it.", "content": {"application/json": {"schema": created}}},
            **_problems(400, 401, 403, 408, 413, 422, 429, 503),
        },
    }
    batch = {
        "summary": "Publish a batch in order, all or nothing",
        "description": "NDJSON: one `{channel, data, event?, retry?}` a line, each member once. `data` that is not a "
        "string is sent as JSON. "
        f"At most {settings.sse_max_batch_events} events and {settings.sse_max_batch_bytes} bytes.",
        "parameters": [key, trace],
        "requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}},
        "responses": {
            "201": {
                "description": "The log holds all of them.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"ids": {"type": "array", "items": _ID}},
                            "required": ["ids"],
                        }
                    }
                },
            },
            **_problems(400, 401, 403, 408, 413, 415, 422, 429, 503),
        },
    }
    channels = {
        "name": "channel",
        "in": "query",
        "required": True,
        "schema": {"type": "array", "items": _CHANNEL, "minItems": 1, "maxItems": settings.sse_max_channels},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headwater", "version": VERSION, "license": {"name": "MIT", "identifier": "MIT"}},
        "security": _security(reading=False),
        "paths": {
            "/events/{channel}": {
                "get": _stream_operation([_path("channel", _CHANNEL)]),
                "post": {**publish, "parameters": [_path("channel", _CHANNEL), *publish["parameters"]]},
            },
            "/events": {"get": _stream_operation([channels]), "post": batch},
        },
        "components": {
            "securitySchemes": {scheme.name: scheme.openapi for scheme in SCHEMES},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457",
                    "properties": {
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                    "required": ["title", "status", "detail"],
                },
                "NotStored": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {
                            "type": "object",
                            "properties": {"stored": {"type": "string", "enum": list(STORED)}},
                            "required": ["stored"],
                        },
                    ],
                },
                # OpenAPI 3.1 cannot describe a sequence, so this is the schema of one block (3.2 has itemSchema).
                "Event": {
                    "type": "object",
                    "description": "One block of the stream (WHATWG HTML §9.2). Without data it dispatches nothing.",
                    "properties": {
                        "id": _ID,
                        "event": {"type": "string"},
                        "retry": _RETRY,
                        "data": {"type": "string"},
                    },
                },
            },
        },
    }
