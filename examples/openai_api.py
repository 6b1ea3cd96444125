"""An API like OpenAI's chat completions: any client of it can read a run. Tested with the ``openai`` Python package.

    headwater serve --app examples.openai_api        (or: flask --app examples.openai_api run -p 8080)

    client = OpenAI(base_url="http://localhost:8080/v1", api_key="none")
    stream = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "why"}], stream=True,
        extra_headers={"Idempotency-Key": "question-7"},
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="")

Whoever sends the same ``Idempotency-Key`` again gets the same answer from its first chunk on: the model is not asked
twice. That is how this client repeats a request that failed, and how to continue a stream that broke off, which ends
without a ``finish_reason``. ``run.response(plain=True)`` adds nothing that the client would take for a chunk.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Flask, Response, request

from headwater import SSE

app = Flask(__name__)
app.config.from_prefixed_env()
sse = SSE(app)


def tokens(messages: list[dict[str, Any]]) -> Iterator[str]:
    """What a model would yield."""
    for word in f"You ask: {messages[-1]['content']!r}. The answer is forty-two.".split():
        time.sleep(0.2)
        yield f"{word} "


def chunks(name: str, model: str, texts: Iterable[str]) -> Iterator[str]:
    """Encode a model's tokens as chunks of a chat completion."""
    head = {"id": name, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        return json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    yield chunk({"role": "assistant", "content": ""})
    try:
        for text in texts:
            yield chunk({"content": text})
    except Exception:
        # At this, the client raises APIError. The traceback is in the log only.
        yield json.dumps({"error": {"message": "the model failed", "type": "server_error"}})
        raise
    yield chunk({}, "stop")
    yield "[DONE]"


@app.post("/v1/chat/completions")
def complete() -> Response | tuple[dict[str, Any], int]:
    """Answer as a stream. (Here you would look whose key this is.)"""
    asked = request.get_json()
    if not asked.get("stream"):
        return {"error": {"message": "this example only streams: stream=True", "type": "invalid_request_error"}}, 400
    key = request.headers.get("Idempotency-Key", uuid.uuid4().hex)
    name = f"chatcmpl-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    run = sse.run(f"completion:{name}", chunks(name, asked["model"], tokens(asked["messages"])), key=key)
    response = run.response(plain=True)
    response.headers["X-Run"] = run.id  # for POST /runs/<id>/stop
    return response
