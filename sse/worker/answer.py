"""One request, from its parsed head to the app's answer on the wire."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import gevent
from gunicorn.http.wsgi import FileWrapper
from gunicorn.util import write_error
from gunicorn.workers.base_async import ALREADY_HANDLED

from ..observe import access as accesslog
from ..observe.environ import GZIP, HEALTH_LISTENER, HUNG_UP, RAISED, REPEAT, STREAM, TAKEOVER, WHY_LOST
from ..observe.request_id import request_id
from ..runtime.redaction import redact
from .connection import Connection, why_lost
from .deadlines import ConnState
from .head_memory import create
from .repeats import Again, only_ours, repeat_of

if TYPE_CHECKING:
    from .parser import CachedConfig
    from .response import Response


class Worker(Protocol):
    """The worker that answers.

    mount         the path under which a proxy serves the app; gunicorn removes this prefix from each request's path
    health_names  addresses of health's listeners
    takes_over    whether streams can be taken over
    nr            number of requests so far, counted for gunicorn's hooks
    """

    request_cfg: CachedConfig
    mount: str
    health_names: frozenset[Any]
    takes_over: bool
    nr: int
    wsgi: Any
    log: Any

    def for_health(self, connection: Connection) -> bool: ...


def answer(worker: Worker, connection: Connection, req: Any) -> bool:
    """Let the app answer one request; return whether the connection may be kept.

    Raises OSError, and what the app raised before the head was sent.
    """
    cfg = worker.request_cfg
    for_health = worker.for_health(connection)
    began = time.monotonic()
    sock = connection.sock
    environ: dict[str, Any] = {}
    resp: Response | None = None
    try:
        cfg.pre_request(worker, req)
        if worker.mount and not _is_below(req.path, worker.mount):
            if not for_health:
                write_error(sock, 404, "Not Found", "this service is at another path")
                return False
            # Probes ask for /readyz, without the app's prefix.
            req.path = worker.mount + req.path
        response_args = (connection, connection.take_over)
        resp, environ = create(req, sock, connection.addr, connection.listener, cfg, response_args)
        if worker.health_names:
            environ[HEALTH_LISTENER] = for_health
        if not for_health:
            resp.request_id = request_id(environ)
        environ["wsgi.multithread"] = True
        environ[HUNG_UP] = connection.hung_up
        environ[WHY_LOST] = connection.why_lost
        if worker.takes_over:
            environ[TAKEOVER] = resp.take_over
            environ[GZIP] = resp.may_gzip
        if "HTTP_UPGRADE" in environ:
            # The app may use the socket for a websocket, which the header's time-out must not end.
            sock.settimeout(None)
        if worker.takes_over and not for_health and connection.may_repeat(req, cfg):
            environ[REPEAT] = partial(_offered, resp)
        if req.raised is not None:
            environ[RAISED], req.raised = req.raised, None
        worker.nr += 1
        body = worker.wsgi(environ, resp.start_response)
        if body is ALREADY_HANDLED:
            raise StopIteration
        try:
            if req.method == "HEAD":
                pass  # iterating a stream's generator would never end
            elif isinstance(body, FileWrapper):
                resp.write_file(body)
            else:
                resp.write_all(body)
            if connection.state is not ConnState.STREAM:
                resp.close()
        except (OSError, gevent.GreenletExit) as error:
            connection.lost = why_lost(error)
            raise
        finally:
            if hasattr(body, "close"):
                body.close()
        keep = not resp.should_close()
        if keep and resp.again is not None:
            connection.offered = repeat_of(resp.again, resp, redact(req.uri), environ["REMOTE_ADDR"])
        return keep
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, StopIteration) and resp is not None and resp.status is None:
            # gunicorn's convention: the app has answered on environ["gunicorn.socket"], and may still read from it.
            connection.reading_body = False
            return False
        if resp is None or not resp.headers_sent:
            raise
        # Cut the body visibly: an error page in the middle of it would look like a part of it.
        worker.log.exception("the app failed in the middle of its answer")
        connection.broken = connection.broken or "error"
        return False
    finally:
        # A stream writes its own line at its end, also one that a generator serves.
        logged = connection.state is ConnState.STREAM or STREAM in environ
        if resp is not None and not logged and accesslog.enabled() and not for_health:
            target = redact(req.uri)
            accesslog.request_answered(environ, target, str(resp.status), resp.sent, began)
        cfg.post_request(worker, req, environ, resp)


def _offered(response: Response, again: Again) -> None:
    """``environ["sse.repeat"]``: keep what answers the same head again, if the app itself offers it."""
    if only_ours(sys._getframe(1), answer.__code__):
        response.again = again


def _is_below(path: str, mount: str) -> bool:
    return path == mount or path.startswith(f"{mount.rstrip('/')}/")
