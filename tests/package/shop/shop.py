"""An app with modules named sse, health and settings, a page at /events, Flask-SSE and flask-sock; and ours.

test_serve.py copies this folder, and starts it as a user would.
"""

import os

import flask
from flask_sock import Sock
from flask_sse import sse as flask_sse

import health
import settings
import sse
from headwater import SSE, Health

headwater = SSE()


def create_app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.config["REDIS_URL"] = os.environ["SHOP_REDIS"]
    app.config["SSE_LOG"] = os.environ["SSE_LOG"]
    app.register_blueprint(flask_sse, url_prefix="/stream")
    sock = Sock(app)

    @app.get("/events")
    def calendar() -> str:
        return " ".join((sse.MINE, health.MINE, settings.MINE))

    @app.post("/orders")
    def order() -> str:
        flask_sse.publish({"by": "flask-sse"})
        return headwater.publish("orders", flask.request.get_data(as_text=True), event="created")

    @sock.route("/echo")
    def echo(socket) -> None:
        while True:
            socket.send(socket.receive().upper())

    headwater.init_app(app)
    Health(app)
    return app


if os.environ.get("SHOP_FACTORY") is None:
    app = create_app()
