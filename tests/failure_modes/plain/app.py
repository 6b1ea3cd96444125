"""An SSE app as usually written: a generator with a queue per client, a thread that fans out, and one health route.
It is no straw man: each line of it is in tutorials, and works until it does not.

The lab needs its faults, so they stay. Fault switches are environment variables, for the tests only.
"""

import json
import os
import threading
import time

import redis
from flask import Flask, Response, request

from tests.failure_modes import blocking

# Migrations, loading a model, warming a cache: seconds before the first request can be served.
time.sleep(float(os.environ.get("SLOW_START", "0")))

app = Flask(__name__)
clients = []
inbox = []
arrived = threading.Event()
database = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=0.3) if os.environ.get("REDIS_URL") else None


def fan_out():
    """Fan out in the usual daemon thread, which ends at a message that it cannot read."""
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
    """Check with REDIS_URL what the app depends on, as health checks usually do."""
    if database is not None:
        database.ping()
    response = Response("ok\n", mimetype="text/plain")
    # So that no probe is kept alive; but gunicorn drops it.
    response.headers["Connection"] = "close"
    return response


@app.get("/status")
def status():
    """Answer with a length counted by hand: in characters, of a body sent in bytes; and the other way round."""
    text = request.args.get("text", "grün\n")
    length = len(text) + int(request.args.get("more", "0"))
    # An iterator, like a report or a proxied answer: Flask counts only what it holds.
    return Response(iter([text.encode()]), mimetype="text/plain", headers={"Content-Length": str(length)})


@app.get("/report")
def report():
    """Do work that a user asks for."""
    blocking.work(float(request.args["seconds"]))
    return "done\n"
