"""Keep-alive, pipelining, methods, and clients that leave in the middle of an ordinary request."""

from __future__ import annotations

from dataclasses import replace

from tests.live.raw.case import (
    HEADER_ONLY,
    OFF,
    PAGE,
    PROBE,
    READ_ONLY,
    Case,
    Differs,
    post,
    request,
)
from tests.live.raw.steps import (
    Answer,
    Close,
    Closed,
    HalfClose,
    Healthy,
    LetsGo,
    Mark,
    Repeat,
    Reset,
    Send,
    StaysOpen,
    Stream,
)

NOWHERE = request("GET", "/nowhere")
REFUSED = request("POST", "/nowhere", f"Content-Length: {len(PROBE)}", body=PROBE)
CLOSES = {"connection": "close"}

KEPT = (
    Case("two requests, one after the other", (Send(PAGE), Answer(200), Send(post("kept", b"x")), Answer(201))),
    Case(
        "pipelined requests",
        (Send(post("piped", b"x") + PAGE + NOWHERE), Answer(201), Answer(200), Answer(404)),
    ),
    Case("pipelined probes", (Send(PROBE * 3), Answer(200, CLOSES, body=b"ok\n"), Closed())),
    Case(
        "a pipelined request after one that closes",
        (
            Send(PAGE + request("GET", "/openapi.json", "Connection: close") + PAGE),
            Answer(200),
            Answer(200, CLOSES),
            Closed(),
        ),
    ),
    Case(
        "Connection: close",
        (Send(request("GET", "/openapi.json", "Connection: close")), Answer(200, CLOSES), Closed()),
    ),
    Case(
        "Connection: close in a list, in capitals",
        (Send(request("GET", "/openapi.json", "Connection: TE, CLOSE")), Answer(200, CLOSES), Closed()),
    ),
    Case(
        "Connection: close of a publisher",
        (Send(post("kept", b"x", "Connection: close")), Answer(201, CLOSES), Closed()),
    ),
    Case(
        "1001 requests on one connection",
        (Repeat(PAGE, 1000, last_closes=True), Mark(), Closed(), Healthy()),
        HEADER_ONLY,
        go=Differs(
            "net/http has no such limit; here, as in nginx, it makes load balancers connect anew",
            (Repeat(PAGE, 1001), StaysOpen(0.2)),
        ),
    ),
    Case("1001 requests where their number is not limited", (Repeat(PAGE, 1001), StaysOpen(0.2)), OFF),
    Case(
        "the body of a refused request that is large",
        (
            Send(request("POST", "/nowhere", "Content-Length: 200000", body=b"x" * 200_000) + NOWHERE),
            Answer(404),
            Answer(404),
            StaysOpen(0.2),
        ),
    ),
    Case(
        "the body of a refused request is not the next request, and the same head came before",
        ((Send(REFUSED), Answer(404)) * 4 + (Send(NOWHERE), Answer(404), StaysOpen(0.2))),
    ),
    Case(
        "the body of a refused request is not the next request",
        (
            Send(REFUSED + NOWHERE),
            Answer(404),
            Answer(404),
            StaysOpen(0.2),
        ),
    ),
)

OLD = (
    Case(
        "HTTP/1.0 without keep-alive",
        (Send(request("GET", "/openapi.json", version="1.0")), Answer(200), Closed()),
    ),
    Case(
        "HTTP/1.0 with keep-alive",
        (
            Send(request("GET", "/openapi.json", "Connection: keep-alive", version="1.0")),
            Answer(200, {"connection": "keep-alive"}),
            Send(request("GET", "/openapi.json", version="1.0")),
            Answer(200),
            Closed(),
        ),
    ),
    Case(
        "HTTP/1.0 without a Host",
        (Send(request("GET", "/healthz", version="1.0", host=None)), Answer(200), Closed()),
    ),
    Case(
        "HTTP/1.0 publishing",
        (Send(post("kept", b"x", version="1.0")), Answer(201, {"transfer-encoding": None}), Closed()),
    ),
)

_GONE = (
    Case("nothing sent, then the end", (HalfClose(), Closed(), LetsGo())),
    Case("nothing sent, then closed at once", (Close(), LetsGo(), Healthy())),
    Case("nothing sent, then reset at once", (Reset(unseen=True), Healthy())),
    Case(
        "half a request line, then the end",
        (Send(b"GET /op"), HalfClose(), Closed(quietly=False), LetsGo()),
    ),
    Case("half a header, then reset", (Send(PAGE[:-8]), Reset(), LetsGo())),
    Case(
        "half a body, then the end",
        (
            Send(request("POST", "/events/half-body", "Content-Length: 10", body=b"01234")),
            HalfClose(),
            Closed(quietly=False),
            LetsGo(),
        ),
    ),
    Case(
        "half a body, then reset",
        (
            Send(request("POST", "/events/half-body", "Content-Length: 10", body=b"01234")),
            Reset(),
            LetsGo(),
        ),
    ),
    Case(
        "half-close after a whole request",
        (Send(post("kept", b"x")), HalfClose(), Answer(201), Closed()),
    ),
    Case("half-close of an idle connection", (Send(PAGE), Answer(200), HalfClose(), Closed(), LetsGo())),
    Case("reset of an idle connection", (Send(PAGE), Answer(200), Reset(), LetsGo())),
    Case("reset instead of reading the answers", (Send(PAGE * 20), Reset(), LetsGo(), Healthy())),
)

#: Where no time-out could be the reason of the end.
GONE = tuple(replace(case, profile=OFF) for case in _GONE)

ROUTES = (
    "/",
    "/openapi.json",
    "/events?channel=methods",
    "/events/methods",
    "/healthz",
    "/livez",
    "/readyz",
    "/startupz",
)


def _methods() -> tuple[Case, ...]:
    """HEAD has GET's status and no body; OPTIONS answers at once, also where GET would stream."""
    cases = []
    for route in ROUTES:
        options = Answer((200, 204) if route.startswith("/events") else (200, 204, 405), present=("allow",))
        for method, answer in (("HEAD", Answer(200, head=True)), ("OPTIONS", options)):
            steps = (Send(request(method, route, "Connection: close")), answer, Closed())
            cases.append(Case(f"{method} {route}", steps))
    return tuple(cases)


METHODS = (
    *_methods(),
    Case(
        "a method nobody knows",
        (Send(request("BREW", "/openapi.json")), Answer(405), Send(PAGE), Answer(200)),
    ),
    Case("a method that the route does not have", (Send(request("PUT", "/events/methods")), Answer(405))),
    Case(
        "HEAD is followed by the next answer",
        (Send(request("HEAD", "/openapi.json") + PAGE), Answer(200, head=True), Answer(200)),
    ),
)

SERVER_HEADER = (
    Case("the Server header", (Send(PAGE), Answer(200, {"server": "headwater"}))),
    Case("the Server header of a probe", (Send(PROBE), Answer(200, {"server": "headwater"}))),
    Case("the Server header, another", (Send(PAGE), Answer(200, {"server": "acme/2 (test)"})), READ_ONLY),
    Case("the Server header, none", (Send(PAGE), Answer(200, {"server": None})), OFF),
    Case(
        "the Server header of a stream, another",
        (Send(request("GET", "/events/named")), Stream(server_header="acme/2 (test)")),
        READ_ONLY,
    ),
    Case(
        "the Server header of a stream, none",
        (Send(request("GET", "/events/nameless")), Stream(server_header=None)),
        OFF,
    ),
)

CASES = (*KEPT, *OLD, *GONE, *METHODS, *SERVER_HEADER)
