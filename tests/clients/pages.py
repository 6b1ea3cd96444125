"""Pages for browsers, each with one client that notes events in ``window.seen``, as [type, data, id]."""

from __future__ import annotations

from tests.support.server import ROOT

MODULES = ROOT / "tests" / "js" / "node_modules"

# The icon: otherwise the browser requests one, on a connection that a stream may use later.
_PAGE = '<!doctype html><meta charset="utf-8"><title>client</title><link rel="icon" href="data:,">'


def event_source(url: str) -> str:
    """The browser's own EventSource."""
    return f"""{_PAGE}
        <script>
            window.seen = [];
            const source = new EventSource("{url}");
            for (const type of ["message", "heartbeat", "stream-reset", "update"])
                source.addEventListener(type, (e) => seen.push([e.type, e.data, e.lastEventId]));
        </script>"""


def htmx(url: str) -> str:
    """htmx with its SSE extension, which swaps the data in."""
    return f"""{_PAGE}
        <script>window.seen = [];</script>
        <script>{(MODULES / "htmx.org/dist/htmx.min.js").read_text()}</script>
        <script>{(MODULES / "htmx-ext-sse/dist/sse.js").read_text()}</script>
        <div hx-ext="sse" sse-connect="{url}">
            <p id="shown" sse-swap="message,heartbeat,stream-reset"></p>
        </div>
        <script>
            document.getElementById("shown").addEventListener("htmx:sseMessage", ({{ target, detail }}) =>
                seen.push([detail.type, target.textContent, detail.lastEventId]));
        </script>"""


def turbo(url: str) -> str:
    """Turbo's ``<turbo-stream-source>``, which acts on ``<turbo-stream>`` elements in events of the type message."""
    return f"""{_PAGE}
        <script>{(MODULES / "@hotwired/turbo/dist/turbo.es2017-umd.js").read_text()}</script>
        <ul id="list"></ul>
        <script>
            window.seen = [];
            new MutationObserver((changes) => {{
                for (const {{ addedNodes }} of changes)
                    for (const node of addedNodes) if (node.tagName === "LI") seen.push(["message", node.textContent, null]);
            }}).observe(document.getElementById("list"), {{ childList: true }});
        </script>
        <turbo-stream-source src="{url}"></turbo-stream-source>"""


def turbo_stream(text: str) -> str:
    """An event's data for the page above."""
    return f'<turbo-stream action="append" target="list"><template><li>{text}</li></template></turbo-stream>'
