"""A service at a URL, spoken to by HTTP. Only the standard library is needed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from socket import gaierror
from typing import Final
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..sse.events.blocks import Blocks
from ..sse.version import VERSION
from .errors import Failed
from .messages import CLOSED, CONTROL, HEARTBEAT, Message, NotNow

# Seconds without a byte after which a stream is opened again: four times the service's heartbeat, so something in
# between has lost the connection. Where SSE_HEARTBEAT is longer, this costs a reconnection, and no event.
SILENCE: Final = 60.0
REQUEST_TIMEOUT: Final = 30.0   # seconds, for a publish

# Seconds until the next attempt: what the service asked for (`retry:`), doubling to the most while nothing answers.
FIRST_DELAY, MOST_DELAY = 2.0, 30.0

PIECE = 65_536  # bytes


class _NoRedirects(HTTPRedirectHandler):
    """Threat: urllib follows a redirect with the token, to whatever host it names."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class Service:
    """The service at ``url``, such as ``https://events.example.com``; below a path if a proxy serves it there.

    token: a publish key, or a token; None: send neither. Raises Failed for what is no such URL.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise Failed(f"{url!r} is not the service's address, such as http://localhost:8080")
        if parts.username is not None:
            raise Failed("the address has a name or a password in it: give --token-file, or set HEADWATER_TOKEN")
        self._base = url.rstrip("/").removesuffix("/events")
        self._headers = {"User-Agent": f"headwater/{VERSION}"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = build_opener(_NoRedirects)

    def publish(self, channel: str, data: str, event: str | None, key: str) -> str:
        """Publish once, and return the event's id. Raises NotNow if it may be repeated with this key, else Failed."""
        query = "" if event is None else "?" + urlencode({"event": event})
        headers = {"Idempotency-Key": key, "Content-Type": "text/plain; charset=utf-8"}
        path = f"/events/{quote(channel, safe='')}{query}"
        with self._open("POST", path, headers, REQUEST_TIMEOUT, data.encode()) as response:
            try:
                return str(json.loads(response.read())["id"])
            except (OSError, HTTPException) as error:
                raise NotNow(f"the answer was lost: {_reason(error)}") from None
            except (ValueError, TypeError, KeyError):
                raise Failed(f"{self._base} is not this service: it took the event, and its answer has no id") from None

    def listen(
        self, channels: Sequence[str], types: Sequence[str], since: str | None, say: Callable[[str], None]
    ) -> Iterator[Message]:
        """Yield events, for ever; open the stream again whenever it ends, after what was seen last.

        Ends when all channels are closed (204). say: tells of what a person should know. Raises Failed.
        """
        named = channels[0] if len(channels) == 1 and not channels[0].endswith("*") else None
        asked = [("channel", channel) for channel in channels] + [("event", kind) for kind in types]
        if named is None:
            asked.append(("envelope", "1"))  # says which channel an event came from
        cursor, begin = None, [] if since is None else [("since", since)]
        retry = delay = FIRST_DELAY
        away = False
        while True:
            headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
            if cursor is not None:
                headers["Last-Event-ID"] = cursor
            try:
                with self._open("GET", "/events?" + urlencode(asked + begin), headers, SILENCE) as response:
                    if response.status == 204:
                        say(CLOSED)
                        return
                    kind = response.headers.get_content_type()
                    if kind != "text/event-stream":
                        raise Failed(f"{self._base}/events is no event stream, but {kind}")
                    blocks = Blocks()
                    while piece := response.read1(PIECE):
                        for block in blocks.feed(piece):
                            if away:
                                say("connected again")
                                away = False
                            if block.retry is not None:
                                retry = block.retry / 1000
                            delay = retry
                            if block.id:
                                cursor, begin = block.id, []
                            if block.data is not None and block.event != HEARTBEAT:
                                yield _message(block.id or cursor, named, block.event, block.data)
            except NotNow as error:
                if not away:
                    say(f"{error}; trying again")
                away, delay = True, max(delay, error.retry_after)
            except TimeoutError:
                pass  # no byte for too long: the connection is gone, whether or not the other side knows
            except (OSError, HTTPException, ValueError) as error:
                if not away:
                    say(f"the stream was cut ({_reason(error)}); trying again")
                away = True
            time.sleep(delay * random.uniform(0.75, 1.25))
            delay = min(delay * 2, MOST_DELAY) if away else retry

    def _open(
        self, method: str, path: str, headers: Mapping[str, str], timeout: float, body: bytes | None = None
    ) -> HTTPResponse:
        """Send a request; return the answer if it is a good one. Raises NotNow, Failed."""
        request = Request(self._base + path, data=body, headers={**self._headers, **headers}, method=method)
        try:
            response: HTTPResponse = self._opener.open(request, timeout=timeout)
        except HTTPError as error:
            with error:
                raise _refusal(error, self._base) from None
        except (OSError, HTTPException) as error:
            never_sent = isinstance(getattr(error, "reason", None), ConnectionRefusedError | gaierror)
            stored = "no" if never_sent else "unknown"
            raise NotNow(f"no answer from {self._base}: {_reason(error)}", stored=stored) from None
        return response


def _refusal(answer: HTTPError, base: str) -> Exception:
    """What to raise for an answer that is not a good one (RFC 9457: problem+json)."""
    try:
        problem = json.loads(answer.read(PIECE))
        told = problem.get("detail") or problem.get("title")
    except (OSError, HTTPException, ValueError, AttributeError):
        problem, told = {}, None
    text = f"{base} answers {answer.code} {answer.reason}" + (f": {told}" if told else "")
    if 300 <= answer.code < 400:
        return Failed(f"{base} redirects to {answer.headers.get('Location')}: give that as --url")
    if answer.code in (401, 403):
        return Failed(f"{text} (a key or token is given by --token-file or HEADWATER_TOKEN)")
    if answer.code in (408, 425, 429) or answer.code >= 500:
        wait = answer.headers.get("Retry-After", "")
        stored = str(problem.get("stored", "unknown" if answer.code >= 500 else "no"))
        return NotNow(text, float(wait) if wait.isdecimal() else 1.0, stored)
    return Failed(text)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "reason", None)  # of urllib's URLError
    if isinstance(cause, BaseException):
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _message(id_: str | None, channel: str | None, event: str | None, data: str) -> Message:
    """Make a message; take it out of its envelope, unless the service does not know what that is."""
    if event in CONTROL:
        return Message(id_, None, event, data)
    if channel is None and data.startswith("{"):
        try:
            envelope = json.loads(data)
        except ValueError:
            envelope = {}
        if envelope.get("id") == id_ and isinstance(envelope.get("channel"), str):
            return Message(id_, envelope["channel"], event, str(envelope.get("data", "")))
    return Message(id_, channel, event, data)
