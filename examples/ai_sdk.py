"""A chat for the AI SDK's ``useChat``, whose answers go on while nobody reads them, and resume.

    headwater serve --app examples.ai_sdk        (or: flask --app examples.ai_sdk run -p 8080)

These are the routes that ``useChat({ id, messages, resume: true })`` asks for; ai_sdk_chat.jsx is the page's side. The
stream is the AI SDK's UI message stream, version 1, made here from a model's tokens. ``run.response(plain=True)`` adds
nothing to it that the AI SDK would take for a part of the message.

A page that is reloaded asks ``/api/chat/<chat>/stream``. As the AI SDK expects, it gets the whole message again, from
its first part on.
"""

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from flask import Flask, Response, request

from headwater import SSE

app = Flask(__name__)
app.config.from_prefixed_env()
app.config.setdefault("CHATS", "var/chats.db")
sse = SSE(app)


def tokens(messages: list[dict[str, Any]]) -> Iterator[str]:
    """What a model's client library would yield."""
    question = "".join(part.get("text", "") for part in messages[-1]["parts"])
    for word in f"You ask: {question!r}. The answer is forty-two.".split():
        time.sleep(0.2)
        yield f"{word} "


def ui_message_stream(message: str, texts: Iterable[str]) -> Iterator[str]:
    """Encode a model's tokens as parts of the AI SDK's UI message stream. message: the id of the answer.

    Nobody may show a text of an exception to a user, so the part ``error`` has none of it.
    """
    yield _part("start", messageId=message)
    yield _part("text-start", id="text")
    try:
        for text in texts:
            yield _part("text-delta", id="text", delta=text)
    except Exception:
        yield _part("error", errorText="The model failed.")
        raise  # the run ends as `error`, with the traceback in the log
    yield _part("text-end", id="text")
    yield _part("finish", finishReason="stop")
    yield "[DONE]"


def _part(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


@app.post("/api/chat")
def send() -> Response:
    """Answer the newest message of a chat. (Here you would look whose chat it is.)"""
    asked = request.get_json()
    chat, messages = asked["id"], asked["messages"]
    # The same message that is sent twice has one answer; another answer to it has to be asked for.
    again = asked.get("trigger") == "regenerate-message"
    name = uuid.uuid4().hex if again else messages[-1]["id"]
    run = sse.run(f"chat:{chat}:{name}", answer(chat, messages, name), key=name)
    remember(chat, run=run.id)
    return as_ui_message_stream(run.response(plain=True))


@app.get("/api/chat/<chat>/stream")
def resume(chat: str) -> Response:
    """Send the answer that is being given now, from its beginning; 204 if there is none."""
    run = sse.find_run(recall(chat)[1])
    if run is None or run.state not in ("starting", "running"):
        return Response(status=204)
    return as_ui_message_stream(run.response(plain=True))


@app.post("/api/chat/<chat>/stop")
def stop(chat: str) -> Response:
    """Stop the answer, and with it the call to the model. ``stop()`` of ``useChat`` only hangs up, as a reload does."""
    sse.stop_run(recall(chat)[1])
    return Response(status=204)


@app.get("/api/chat/<chat>")
def messages(chat: str) -> dict[str, Any]:
    """Return the messages of a chat, for the page that shows it."""
    return {"messages": recall(chat)[0]}


def as_ui_message_stream(response: Response) -> Response:
    response.headers["X-Vercel-AI-UI-Message-Stream"] = "v1"
    return response


def answer(chat: str, messages: list[dict[str, Any]], name: str) -> Iterator[str]:
    """Ask the model, and store its answer: all of it, or what there is of it when it is stopped."""
    remember(chat, messages=messages)
    said: list[str] = []

    def listened() -> Iterator[str]:
        for text in tokens(messages):
            said.append(text)
            yield text

    message = f"answer-{name}"
    try:
        yield from ui_message_stream(message, listened())
    finally:
        parts = [{"type": "text", "text": "".join(said)}]
        remember(chat, messages=[*messages, {"id": message, "role": "assistant", "parts": parts}])


# ── what stands for your database ──────────────────────────────────────────────────────────────────────────────


def remember(chat: str, *, messages: list[dict[str, Any]] | None = None, run: str | None = None) -> None:
    """Store a chat's messages, or which run answers the last one."""
    with closing(_database()) as database, database:
        database.execute(
            "INSERT INTO chats VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
            " messages = coalesce(excluded.messages, messages), run = coalesce(excluded.run, run)",
            (chat, None if messages is None else json.dumps(messages), run),
        )


def recall(chat: str) -> tuple[list[dict[str, Any]], str]:
    """Return a chat's messages, and the id of the run that answers, or has answered, the last one."""
    with closing(_database()) as database:
        row = database.execute("SELECT messages, run FROM chats WHERE chat = ?", (chat,)).fetchone() or (None, None)
    return json.loads(row[0] or "[]"), row[1] or ""


def _database() -> sqlite3.Connection:
    os.makedirs(os.path.dirname(app.config["CHATS"]) or ".", exist_ok=True)
    database = sqlite3.connect(app.config["CHATS"])
    database.execute("CREATE TABLE IF NOT EXISTS chats (chat TEXT PRIMARY KEY, messages TEXT, run TEXT)")
    return database
