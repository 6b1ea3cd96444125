"""The answer of a language model, streamed token by token from a view's own generator.

    headwater serve --app examples.llm_tokens        (or: flask --app examples.llm_tokens run -p 8080)
    curl -N 'localhost:8080/answer?question=why'

While the model is silent, the client gets heartbeats. When the client leaves, the generator is closed, and with it the
call to the model.
"""

import time
from collections.abc import Iterator

from flask import Flask, Response, request

from headwater import SSE, Message

app = Flask(__name__)
sse = SSE(app)


def tokens(question: str) -> Iterator[str | Message]:
    """What a model's client library would yield."""
    for word in f"You ask: {question!r}. The answer is forty-two.".split():
        time.sleep(0.2)
        yield f"{word} "
    yield Message("", event="done")


@app.get("/answer")
def answer() -> Response:
    return sse.response(tokens(request.args.get("question", "what")))
