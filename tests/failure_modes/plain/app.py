"""An SSE app as such apps are usually written: a generator with a queue for each client, a thread that fans out, and
one health route beside them. It is not a straw man: each line of it stands in tutorials, and works until it does not.

Its faults are the lab's subject, so they stay. Fault switches are environment variables, for the tests only.
"""

import json
import os
import threading
import time

import redis
from flask import Flask, Response, request

from tests.failure_modes import blocking

# Migrations, a model that is loaded, a cache that is warmed: seconds before the first request can be served.
time.sleep(float(os.environ.get("SLOW_START", "0")))

app = Flask(__name__)
clients = []
inbox = []
arrived = threading.Event()
database = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=0.3) if os.environ.get("REDIS_URL") else None


def fan_out():
    """The usual daemon thread: one message that it cannot read is its last."""
    while True:
        arrived.wait()
        arrived.clear()
        while inbox:
            message = json.loads(inbox.pop(0))
            for client in list(clients):
                client.put(message["data"])


def start_once():
    if not any(thread.name == "fan-out" for thread in threading.enumerate()) and not app.config.get("STARTED"):
        app.config["STARTED"] = True
        threading.Thread(target=fan_out, name="fan-out", daemon=True).start()


@app.get("/events")
def events():
    from queue import Queue

    queue = Queue()
    clients.append(queue)
    start_once()

    def stream():
        try:
            if os.environ.get("WELCOME", "yes"):
                yield ": welcome\n\n"
            while True:
                yield f"data: {queue.get()}\n\n"
        finally:
            clients.remove(queue)

    return Response(stream(), mimetype="text/event-stream")


@app.post("/publish")
def publish():
    start_once()
    inbox.append(request.get_data(as_text=True))
    arrived.set()
    return "", 204


@app.get("/healthz")
def healthz():
    """With REDIS_URL it checks what the app depends on, as health checks usually do."""
    if database is not None:
        database.ping()
    response = Response("ok\n", mimetype="text/plain")
    # So that no probe is kept alive. gunicorn drops it on the way.
    response.headers["Connection"] = "close"
    return response


@app.get("/status")
def status():
    """A length counted by hand, in characters, of a body that is sent in bytes; and the other way round."""
    text = request.args.get("text", "grün\n")
    length = len(text) + int(request.args.get("more", "0"))
    # An iterator, as a report or a proxied answer is one: Flask counts only what it holds.
    return Response(iter([text.encode()]), mimetype="text/plain", headers={"Content-Length": str(length)})


@app.get("/report")
def report():
    """Work that a user asks for."""
    blocking.work(float(request.args["seconds"]))
    return "done\n"
