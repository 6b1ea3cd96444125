"""An app whose hooks do to responses what popular extensions do; ``X-Do`` in the request says which. For
tests/live/test_hooks.py."""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator

import flask

from health import Health
from settings import load
from sse import SSE

app = flask.Flask(__name__)
sse = SSE(app, load())
Health(app)


@app.get("/own")
def own() -> flask.Response:
    """A stream that the app makes itself."""

    def ticks() -> Iterator[str]:
        while True:
            yield "tick"
            time.sleep(0.05)

    return sse.response(ticks())


def _compressed(body: Iterable[bytes]) -> Iterator[bytes]:
    """Compress a stream as Flask-Compress does."""
    compressor = zlib.compressobj()
    for item in body:
        yield compressor.compress(item) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()


def compress(response: flask.Response) -> flask.Response:
    response.response = _compressed(response.response)  # type: ignore[arg-type]
    response.headers["Content-Encoding"] = "deflate"
    return response


def shout(response: flask.Response) -> flask.Response:
    response.response = (item.replace(b"data: e", b"data: E") for item in response.response)  # type: ignore[union-attr]
    return response


def announce(response: flask.Response) -> flask.Response:
    """Announce compression, and leave it to a proxy."""
    response.headers["Content-Encoding"] = "identity"
    return response


def begin(response: flask.Response) -> flask.Response:
    """Put a block before the body, by an iterator that has no frame on the stack."""
    response.response = itertools.chain([b": hello\n\n"], response.response)  # type: ignore[arg-type]
    return response


def measure(response: flask.Response) -> flask.Response:
    response.get_data()
    return response


def replace(response: flask.Response) -> flask.Response:
    return flask.Response("something else\n")


def fail(response: flask.Response) -> flask.Response:
    raise RuntimeError("a hook that fails")


def add(response: flask.Response) -> flask.Response:
    """Change only headers that leave the body as it is."""
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
    response.set_cookie("seen", "1")
    return response


DOINGS: dict[str, Callable[[flask.Response], flask.Response]] = {
    one.__name__: one for one in (compress, shout, announce, begin, measure, replace, fail, add)
}


@app.after_request
def do(response: flask.Response) -> flask.Response:
    doing = DOINGS.get(flask.request.headers.get("X-Do", ""))
    return response if doing is None else doing(response)
