"""The API's description for ``GET /openapi.json``, in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from ..auth.bearer import PUBLISHING_SCHEMES, SCHEMES
from ..events.model import CHANNEL_PATTERN, CONTROL_EVENTS, MAX_RETRY_MS, MAX_TYPE_CHARS
from ..events.wire import RESET_REASONS
from ..log.base import CHANNELS_MOST, STORED
from ..observe.request_id import GIVEN
from ..runs.book import RUN_PATTERN
from ..runs.states import State
from ..settings import Settings
from ..version import VERSION
from .places import placed
from .publishing import KEY_PATTERN
from .query import PAGE, PAGE_MOST, WAIT_MOST

PROBLEM = "application/problem+json"

_WAIT = "History: if there is no event yet, wait so many seconds for one (long polling)."

# In a path or query; names beginning with "_" are reserved and refused with 400.
_CHANNEL = {"type": "string", "pattern": f"^{CHANNEL_PATTERN.pattern}$", "examples": ["orders", "user:17"]}
# What a reader may ask for: a name, the beginning of one and "*", or "*" alone.
_SELECTOR = {
    "type": "string",
    "pattern": rf"^({CHANNEL_PATTERN.pattern}\*?|\*)$",
    "examples": ["orders", "user:17", "orders:*"],
}
# An event's type: one line.
_TYPE = {"type": "string", "pattern": r"^[^\r\n\x00]+$", "minLength": 1, "maxLength": MAX_TYPE_CHARS}
_RETRY = {"type": "integer", "minimum": 0, "maximum": MAX_RETRY_MS}
_FLAG = {"type": "string", "enum": ["0", "1"]}
_ID = {"type": "string", "pattern": "^[0-9]+-[0-9]+$", "examples": ["1732345678901-0"]}


def _problems(*statuses: int) -> dict[str, Any]:
    texts = {
        400: "The request is invalid; `detail` names the field and the limit.",
        401: "A token is missing, malformed, expired or revoked (`WWW-Authenticate`).",
        403: "Not allowed; `detail` says what is.",
        404: "There is no such run, or it ended more than a day ago.",
        406: "`Accept` excludes both text/event-stream and application/json.",
        408: "The body did not arrive in time.",
        409: "The channel is closed: it takes nothing more until it is erased.",
        413: "Larger than a setting allows; `limit` is its value.",
        415: "A batch is application/x-ndjson.",
        422: "This Idempotency-Key was used with another body.",
        429: "More publishes than the key's rate (`Retry-After`).",
        500: "The app's own decision about access failed.",
        503: "The log cannot be written now (`stored` is `no`), or did not confirm in time (`unknown`). Retry after "
        "`Retry-After`; with the same `Idempotency-Key` that is safe in both cases.",
    }
    return {str(s): _problem("NotStored" if s == 503 else "Problem", texts[s]) for s in statuses}


def _problem(schema: str, text: str) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _limit(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": PAGE}


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
        "description": "Opens with a `heartbeat` that has `id:` and `retry:`. `heartbeat`, `stream-end`, `run` and "
        f"`stream-reset` ({', '.join(RESET_REASONS)}) are control events. With `Accept: application/json`: a page of "
        "history.",
        "security": _security(reading=True),
        "parameters": [
            *extra,
            _header("Last-Event-ID", text, "Resume after this id. Wins over the query."),
            _query("lastEventId", text, "The same, for clients that cannot set headers; also `last_event_id`."),
            _query("since", text, "History: an id, unix milliseconds, or `earliest`."),
            _query("event", {"type": "array", "items": {**text, "minLength": 1}}, "Keep only these types; repeatable."),
            _query("envelope", _FLAG, "1: `data` is a JSON object with the event's channel, id, type and data."),
            _query("plain", _FLAG, "1: heartbeats and control events are comments."),
            _query("limit", _limit(PAGE_MOST), "History: at most so many events."),
            _query("wait", {"type": "integer", "minimum": 0, "maximum": WAIT_MOST}, _WAIT),
        ],
        "responses": {
            "200": {
                "description": "A stream; if there is no room now, only its opening and a clean end. Or a page.",
                "content": {
                    "text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}},
                    "application/json": {"schema": {"$ref": "#/components/schemas/Page"}},
                },
            },
            "204": {"description": "All channels are closed, and the client has got all of them: do not reconnect."},
            **_problems(400, 401, 403, 406, 500),
            "503": _problem("Problem", "For JSON: the log cannot be read now, or no more requests may `wait`."),
        },
    }


_ERASE: dict[str, Any] = {
    "summary": "Erase a channel everywhere, and open it again if it was closed",
    "parameters": [_path("channel", _CHANNEL)],
    "responses": {
        "200": _answer("The log has let go of it.", _object(erased={"type": "integer", "minimum": 0}, through=_ID)),
        **_problems(400, 401, 403, 500),
        "503": _problem("NotStored", "`stored` is `no`: nothing was erased. `unknown`: repeat it until it succeeds."),
    },
}

_RUN_ID = {"type": "string", "pattern": f"^{RUN_PATTERN.pattern}$"}
_RUN = {"$ref": "#/components/schemas/Run"}
_READ_FAILED = _problem("NotStored", "The log cannot be read now.")

_SHOW_RUN: dict[str, Any] = {
    "summary": "Tell the state of a run",
    "security": _security(reading=True),
    "parameters": [_path("run", _RUN_ID)],
    "responses": {
        "200": _answer("What is known of it, on whatever worker it runs.", _RUN),
        **_problems(401, 403, 404, 500),
        "503": _READ_FAILED,
    },
}

_LIST_RUNS: dict[str, Any] = {
    "summary": "List the runs of a channel, the newest first",
    "security": _security(reading=True),
    "parameters": [{"name": "channel", "in": "query", "required": True, "schema": _CHANNEL}],
    "responses": {
        "200": _answer(
            "Those that go on, and those that ended within a day.", _object(runs={"type": "array", "items": _RUN})
        ),
        **_problems(400, 401, 403, 500),
        "503": _READ_FAILED,
    },
}

_STOP_RUN: dict[str, Any] = {
    "summary": "Stop a run, on whatever worker it is",
    "description": "Needs the right to publish to its channel. Its iterable is closed within a second.",
    "parameters": [_path("run", _RUN_ID)],
    "responses": {
        "200": _answer("It had ended before.", _RUN),
        "202": _answer("It is being stopped; this is what was known of it before.", _RUN),
        **_problems(401, 403, 404, 500, 503),
    },
}

_MAYBE = {"type": "string", "pattern": f"^({CHANNEL_PATTERN.pattern})?$"}

_LIST: dict[str, Any] = {
    "summary": "List the channels that have events or are closed, by name",
    "description": "Needs the right to manage, or to subscribe to, `<prefix>*`.",
    "security": _security(reading=True),
    "parameters": [
        _query("prefix", _MAYBE, "Names that begin so."),
        _query("after", _MAYBE, "Names behind this one: `next` of the page before."),
        _query("limit", _limit(CHANNELS_MOST), "At most so many."),
    ],
    "responses": {
        "200": _answer(
            "A page. `streams` counts those of all workers, as of at most 5 s ago.",
            _object(
                channels={
                    "type": "array",
                    "items": _object(
                        channel=_CHANNEL,
                        events={"type": "integer", "minimum": 0},
                        bytes={"type": "integer", "minimum": 0},
                        oldest={"oneOf": [_ID, {"type": "null"}]},
                        latest={"oneOf": [_ID, {"type": "null"}]},
                        closed={"type": "boolean"},
                        streams={"type": "integer", "minimum": 0},
                    ),
                },
                next={"oneOf": [_CHANNEL, {"type": "null"}]},
            ),
        ),
        **_problems(400, 401, 403, 500),
        "503": _problem("NotStored", "The log cannot be read now."),
    },
}

_END_STREAMS: dict[str, Any] = {
    "summary": "End streams on every worker",
    "description": "Of several parameters, all must apply. `subject` also refuses that subject's tokens that were "
    "issued before now, for 24 hours.",
    "parameters": [
        {
            "name": "whose",
            "in": "query",
            "required": True,
            "style": "form",
            "explode": True,
            "schema": {
                "type": "object",
                "properties": {
                    "subject": {"type": "string", "minLength": 1},
                    "channel": _SELECTOR,
                    "request": {"type": "string", "pattern": f"^{GIVEN.pattern}$"},
                },
                "additionalProperties": False,
                "minProperties": 1,
            },
        }
    ],
    "responses": {
        "202": _answer("The log holds the command; all workers read it there.", _object(id=_ID)),
        **_problems(400, 401, 403, 500, 503),
    },
}


def describe(settings: Settings) -> dict[str, Any]:
    """Return the description, with the limits of these settings."""
    created = _object(id=_ID, channel=_CHANNEL)
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
            _query("close", _FLAG, "1: close the channel; a body, if any, is its last event."),
            key,
            trace,
        ],
        "requestBody": {
            "description": f"UTF-8 text of any content type; at most {settings.sse_max_event_bytes} bytes.",
            "content": {"*/*": {}},
        },
        "responses": {
            "201": _answer("The log holds it. Without an event: the closing position.", created),
            **_problems(400, 401, 403, 408, 409, 413, 422, 429, 500, 503),
        },
    }
    batch = {
        "summary": "Publish a batch in order, all or nothing",
        "description": "NDJSON: one `{channel, data, event?, retry?, close?}` a line, each member once. `data` that is "
        "not a string is sent as JSON. `close: true` ends the channel; without `data`, the line's id is then "
        "the closing position. "
        f"At most {settings.sse_max_batch_events} events and {settings.sse_max_batch_bytes} bytes.",
        "parameters": [key, trace],
        "requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}},
        "responses": {
            "201": _answer("The log holds all of them.", _object(ids={"type": "array", "items": _ID})),
            **_problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503),
        },
    }
    channels = {
        "name": "channel",
        "in": "query",
        "required": True,
        "schema": {"type": "array", "items": _SELECTOR, "minItems": 1, "maxItems": settings.sse_max_channels},
    }
    paths = {
        "/events/{channel}": {
            "get": _stream_operation([_path("channel", _SELECTOR)]),
            "post": {**publish, "parameters": [_path("channel", _CHANNEL), *publish["parameters"]]},
            "delete": _ERASE,
        },
        "/events": {"get": _stream_operation([channels]), "post": batch},
        "/channels": {"get": _LIST},
        "/streams": {"delete": _END_STREAMS},
        "/runs": {"get": _LIST_RUNS},
        "/runs/{run}": {"get": _SHOW_RUN},
        "/runs/{run}/stop": {"post": _STOP_RUN},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headwater", "version": VERSION, "license": {"name": "MIT", "identifier": "MIT"}},
        "security": _security(reading=False),
        "paths": {placed(path, settings.sse_url_prefix): operations for path, operations in paths.items()},
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
                "Page": _object(
                    events={
                        "type": "array",
                        "items": _object(
                            id=_ID,
                            channel=_CHANNEL,
                            event={"type": ["string", "null"]},
                            data={"type": "string"},
                        ),
                    },
                    next=_ID,
                    reset={"oneOf": [{"type": "null"}, _object(reason={"type": "string"})]},
                    closed={"type": "boolean"},
                ),
                "Run": _object(
                    run=_RUN_ID,
                    channel=_CHANNEL,
                    state={"type": "string", "enum": list(State)},
                    started={"type": "integer", "description": "unix milliseconds"},
                    events={"type": "integer", "minimum": 0},
                    worker={"type": "string"},
                ),
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
