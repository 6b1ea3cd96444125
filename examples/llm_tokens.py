"""The answer of a language model, which survives a reload, a dropped phone and a rolling update.

    headwater serve --app examples.llm_tokens        (or: flask --app examples.llm_tokens run -p 8080)

Open http://localhost:8080 and ask. Reload the page in the middle of the answer, open its address in a second tab, stop
it. Or, from a terminal:

    curl -d question=why localhost:8080/answers
    curl -N 'localhost:8080/events/answer:…?since=earliest'

The model is asked once for each question, whoever watches, and however often. The stream ends with the run, and a
browser's EventSource does not come back: its next request is answered with 204.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, request, send_file

from headwater import SSE

app = Flask(__name__)
app.config.from_prefixed_env()
sse = SSE(app)


def tokens(question: str) -> Iterator[str]:
    """What a model's client library would yield. What it returns is told with the run's end, as its usage."""
    words = f"You ask: {question!r}. The answer is forty-two.".split()
    for word in words:
        time.sleep(0.2)
        yield f"{word} "
    return {"tokens": len(words)}  # type: ignore[return-value]


@app.get("/")
def page() -> Response:
    return send_file("llm_tokens.html")


@app.post("/answers")
def ask() -> dict[str, Any]:
    """Start an answer. A form that is sent twice with the same ``id`` gets the same one."""
    name = request.form.get("id") or uuid.uuid4().hex
    run = sse.run(f"answer:{name}", tokens(request.form["question"]), key=name)
    return {"run": run.id, "channel": run.channel}


@app.post("/answers/<run>/stop")
def stop(run: str) -> dict[str, Any]:
    """Stop an answer, and with it the call to the model. (Here you would look whose it is.)"""
    found = sse.find_run(run)
    if found is None:
        abort(404)
    found.stop()
    return {"run": run}
