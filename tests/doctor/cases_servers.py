"""HW2xx and HW3xx: the end of a pod, and servers."""

from __future__ import annotations

from typing import Any

from tests.doctor.cases import (
    ALPINE,
    BEATS,
    DISTROLESS,
    GUNICORN,
    MOUNTED,
    SLIM,
    UVICORN,
    VOLUME,
    finds,
    silent,
    web,
)
from tests.doctor.manifests import config, container, deployment, ingress, service

# ── HW20x, HW21x: the end
SLEEPS = {"preStop": {"sleep": {"seconds": 15}}}
finds("HW201", "gunicorn waits longer", deployment(container(command=[*GUNICORN, "-k", "gevent", "--graceful-timeout", "120"], lifecycle=SLEEPS), pod={"terminationGracePeriodSeconds": 60}), "terminationGracePeriodSeconds", "breaks")
finds("HW201", "the hook takes it all", web(lifecycle={"preStop": {"exec": {"command": ["sleep", "30"]}}}), "terminationGracePeriodSeconds", "breaks")
finds("HW201", "the app's own drain", deployment(container(env=[{"name": "DRAIN_SECONDS", "value": "40"}])), "terminationGracePeriodSeconds", "breaks")
finds("HW201", "zero", deployment(pod={"terminationGracePeriodSeconds": 0}), "terminationGracePeriodSeconds", "breaks")
finds("HW201", "gunicorn's default is the grace period's", web(command=[*GUNICORN, "-k", "gevent"]), "terminationGracePeriodSeconds", "risks")
silent("HW201", "there is room", deployment(container(command=UVICORN, lifecycle=SLEEPS), pod={"terminationGracePeriodSeconds": 60}))
silent("HW201", "nothing is known", web(lifecycle=SLEEPS))
silent("HW201", "a configuration that cannot be seen", web(command=["gunicorn", "-c", "conf.py", "shop:app"]))

SHELL = "true &&\nuvicorn shop:app --host 0.0.0.0 --timeout-graceful-shutdown 9"
finds("HW202", "dash", web(image=SLIM, command=["sh", "-c"], args=[SHELL]), ".args", "breaks")
finds("HW202", "BusyBox ash and a new line at the end", web(image=ALPINE, command=["sh", "-c", SHELL + "\n"]), ".command", "breaks")
finds("HW202", "which sh is not known", web(command=["/bin/sh", "-c", SHELL]), ".command", "risks")
finds("HW202", "in the background", web(image=SLIM, command=["bash", "-c", "echo x; uvicorn shop:app | tee log"]), ".command", "breaks")
silent("HW202", "exec", web(image=SLIM, command=["sh", "-c", "true\nexec uvicorn shop:app"]))
silent("HW202", "bash execs its last command", web(image=SLIM, command=["bash", "-c", SHELL]))
silent("HW202", "BusyBox ash without a new line", web(image=ALPINE, command=["sh", "-c", SHELL]))
silent("HW202", "a trap", web(image=SLIM, command=["sh", "-c", "trap 'kill $!' TERM; server & wait"]))
silent("HW202", "no shell", web(image=SLIM, command=UVICORN))

finds("HW203", "npm start", web(image="node:22", command=["npm", "start"]), ".command", "risks")
silent("HW203", "node", web(image="node:22", command=["node", "server.js"]))

finds("HW204", "uvicorn", web(command=UVICORN), "lifecycle.preStop", "risks")
silent("HW204", "a hook", web(command=UVICORN, lifecycle=SLEEPS))
silent("HW204", "the app drains", web(command=UVICORN, env=[{"name": "DRAIN_DELAY", "value": "5"}]))
silent("HW204", "a server that nobody knows", web())
silent("HW204", "an environment that cannot be seen", web(command=UVICORN, envFrom=[{"configMapRef": {"name": "elsewhere"}}]))

finds("HW205", "ten seconds", deployment(pod={"terminationGracePeriodSeconds": 10}), "terminationGracePeriodSeconds", "risks")
silent("HW205", "the app needs less", deployment(container(env=[{"name": "DRAIN_SECONDS", "value": "5"}]), pod={"terminationGracePeriodSeconds": 10}))
silent("HW205", "the default", deployment())

finds("HW206", "no option", web(command=["uvicorn", "shop:app", "--host", "0.0.0.0"]), ".command", "risks")
silent("HW206", "an option", web(command=UVICORN))
silent("HW206", "gunicorn has a limit", web(command=GUNICORN))


def hook(*command: str, **fields: Any) -> dict[str, Any]:
    return web(lifecycle={"preStop": {"exec": {"command": list(command)}}}, **fields)


finds("HW211", "quotes within quotes", hook("sh", "-c", "'sleep 10'"), "preStop.exec.command", "breaks")
finds("HW211", "no shell", hook("/bin/sh", "-c", "sleep 5", image=DISTROLESS), "preStop.exec.command", "breaks")
finds("HW211", "not one string", hook("sh", "-c", "sleep", "10"), "preStop.exec.command", "breaks")
finds("HW211", "one word", hook("sleep 10"), "preStop.exec.command", "breaks")
finds("HW211", "operators without a shell", hook("sleep", "5", "&&", "nginx", "-s", "quit"), "preStop.exec.command", "breaks")
silent("HW211", "alpine has sleep", hook("/bin/sleep", "5", image=ALPINE))
silent("HW211", "the kubelet's own", web(image=DISTROLESS, lifecycle=SLEEPS))
silent("HW211", "a program that nobody knows", hook("/drain", image=DISTROLESS))

finds("HW212", "nginx -s quit", hook("nginx", "-s", "quit"), "preStop.exec.command", "risks")
finds("HW212", "a route that stops", web(lifecycle={"preStop": {"httpGet": {"path": "/shutdown", "port": 8080}}}), "preStop.httpGet.path", "risks")
silent("HW212", "sleeps first", hook("sh", "-c", "sleep 10; nginx -s quit"))
silent("HW212", "only sleeps", hook("sleep", "5"))

# ── HW30x: gunicorn, HW31x: other servers
finds("HW301", "the default", web(command=GUNICORN), ".command", "breaks")
finds("HW301", "said so", web(command=["gunicorn"], args=["--worker-class=sync", "-w4", "shop:app"]), ".args", "breaks")
silent("HW301", "gevent", web(command=[*GUNICORN, "-k", "gevent"]))
silent("HW301", "threads make gthread", web(command=[*GUNICORN, "--threads", "8"]))
silent("HW301", "a variable", web(command=GUNICORN, env=[{"name": "GUNICORN_CMD_ARGS", "value": "--worker-class gevent"}]))
silent("HW301", "a configuration that cannot be seen", web(command=["gunicorn", "-c", "conf.py", "shop:app"]))
silent("HW301", "a ConfigMap", [deployment(container(**MOUNTED), pod=VOLUME), config(gunicorn__conf__py='bind = "0.0.0.0:8080"\nworker_class = "gevent"\n')])

finds("HW302", "gthread", web(command=[*GUNICORN, "-w", "2", "--threads", "4"]), ".command", "breaks")
finds("HW302", "many threads", web(command=[*GUNICORN, "--threads", "100"]), ".command", "risks")
finds("HW302", "waitress", web(command=["waitress-serve", "--port=8080", "shop:app"]), ".command", "breaks")
finds("HW302", "uvicorn's limit", web(command=[*UVICORN, "--limit-concurrency", "20"]), ".command", "breaks")
finds("HW302", "a ConfigMap", [deployment(container(**MOUNTED), pod=VOLUME), config(gunicorn__conf__py="threads = 8\n")], "ConfigMap/shop data['gunicorn.conf.py']", "breaks")
silent("HW302", "gevent", web(command=[*GUNICORN, "-k", "gevent"]))
silent("HW302", "uvicorn has no pool", web(command=[*UVICORN, "--workers", "2"]))

finds("HW303", "a hundred", web(command=[*GUNICORN, "-k", "gevent", "--worker-connections", "100"]), ".command", "risks")
silent("HW303", "ten thousand", web(command=[*GUNICORN, "-k", "gevent", "--worker-connections", "10000"]))
silent("HW303", "a thread pool has none", web(command=[*GUNICORN, "-k", "gthread", "--worker-connections", "100"]))

finds("HW304", "gunicorn", web(command=[*GUNICORN, "-k", "gevent", "--max-requests", "1000"]), ".command", "risks")
finds("HW304", "uvicorn ends the container", web(command=[*UVICORN, "--limit-max-requests=500"]), ".command", "breaks")
silent("HW304", "zero is never", web(command=[*GUNICORN, "-k", "gevent", "--max-requests", "0"]))
silent("HW304", "not set", web(command=GUNICORN))

BIG = [*GUNICORN, "-k", "gevent", "-w", "4", "--worker-connections", "10000"]
finds("HW305", "too little", web(command=BIG, resources={"limits": {"memory": "256Mi"}}), "limits.memory", "note")
silent("HW305", "enough", web(command=BIG, resources={"limits": {"memory": "4Gi"}}))

finds("HW311", "a sidecar", deployment(container(), pod={"initContainers": [{"name": "auth", "image": "auth:1", "restartPolicy": "Always", "args": ["--server-write-timeout=15s"]}]}), "initContainers[auth].args", "breaks")
finds("HW311", "Traefik", web(image="traefik:v3.1", args=["--entryPoints.web.transport.respondingTimeouts.writeTimeout=30s"]), ".args", "breaks")
finds("HW311", "a variable", web(env=[{"name": "HTTP_WRITE_TIMEOUT", "value": "15s"}]), "env[HTTP_WRITE_TIMEOUT].value", "breaks")
finds("HW311", "whose it is is assumed", web(env=[{"name": "APP_WRITE_TIMEOUT", "value": "15s"}]), "env[APP_WRITE_TIMEOUT].value", "risks")
silent("HW311", "Traefik's readTimeout", web(image="traefik:v3.1", args=["--entryPoints.web.transport.respondingTimeouts.readTimeout=60s"]))
silent("HW311", "zero", web(args=["--write-timeout=0s"]))
silent("HW311", "Redis'", web(env=[{"name": "REDIS_WRITE_TIMEOUT", "value": "5s"}]))
silent("HW311", "ours, which is without progress", web(env=[{"name": "SSE_WRITE_TIMEOUT", "value": "10"}]))

finds("HW312", "harakiri", web(command=["uwsgi", "--http", ":8080", "--harakiri", "30"]), ".command", "breaks")
finds("HW312", "Spring", web(env=[{"name": "SPRING_MVC_ASYNC_REQUEST_TIMEOUT", "value": "30000"}]), "env[SPRING_MVC_ASYNC_REQUEST_TIMEOUT].value", "breaks")
silent("HW312", "Spring without a limit", web(env=[{"name": "SPRING_MVC_ASYNC_REQUEST_TIMEOUT", "value": "-1"}]))
silent("HW312", "gunicorn's --timeout with gthread", web(command=[*GUNICORN, "--threads", "8", "--timeout", "30"]))

finds("HW313", "uvicorn behind an ALB", [web(command=UVICORN), service(), ingress("alb")], ".command", "risks")
finds("HW313", "node's default is assumed", [web(image="node:22", command=["node", "a.js"]), service(), ingress("gce")], ".command", "note")
silent("HW313", "longer than the ALB's", [web(command=[*UVICORN, "--timeout-keep-alive", "75"]), service(), ingress("alb")])
silent("HW313", "another ingress", [web(command=UVICORN), service(), ingress("nginx")])

finds("HW314", "two pods", web(env=[{"name": "BROADCAST_URL", "value": "memory://"}]), "env[BROADCAST_URL].value", "note")
silent("HW314", "one", deployment(container(env=[{"name": "BROADCAST_URL", "value": "memory://"}]), spec={"replicas": 1}))
silent("HW314", "Redis", web(env=[{"name": "BROADCAST_URL", "value": "redis://redis"}]))

MCP = ["server", "--transport", "sse"]
finds("HW315", "two pods", [web(args=MCP), service()], "spec.replicas", "risks")
silent("HW315", "one", [deployment(container(args=MCP), spec={"replicas": 1}), service()])
silent("HW315", "affinity", [web(args=MCP), service(sessionAffinity="ClientIP")])
silent("HW315", "another transport", [web(args=["server", "--transport", "streamable-http"]), service()])


NETTY = [{"name": "SERVER_NETTY_IDLE_TIMEOUT", "value": "10s"}]
finds("HW316", "below the heartbeat", web(env=NETTY + BEATS), "env[SERVER_NETTY_IDLE_TIMEOUT].value", "breaks")
silent("HW316", "five minutes", web(env=[{"name": "SERVER_NETTY_IDLE_TIMEOUT", "value": "5m"}]))
CONFIG = {"volumeMounts": [{"name": "config", "mountPath": "/etc/shop"}]}
finds("HW317", "Caddy", [deployment(container(**CONFIG), pod=VOLUME), config(Caddyfile="{\n  servers {\n    timeouts {\n      write 30s\n    }\n  }\n}\n")], "ConfigMap/shop data.Caddyfile", "breaks")
finds("HW317", "a Go server's, it seems", [deployment(container(**CONFIG), pod=VOLUME), config(config__yaml="server:\n  writeTimeout: 15s\n")], "data['config.yaml']", "risks")
silent("HW317", "Redis'", [deployment(container(**CONFIG), pod=VOLUME), config(config__yaml="redis:\n  writeTimeout: 15s\n")])
silent("HW317", "nobody mounts it", [web(), config(config__yaml="server:\n  writeTimeout: 15s\n")])
silent("HW302", "threads that the shell fills in", web(command=["sh", "-c", "exec gunicorn --threads ${THREADS:-4} -b :8080 shop:app"]))
silent("HW201", "a time-out that the shell fills in", web(command=["sh", "-c", "exec gunicorn -k gevent --graceful-timeout ${GRACE} -b :8080 shop:app"]))
silent("HW311", "a database's", web(args=["--db-write-timeout=5s"]))
silent("HW302", "uWSGI with gevent", web(command=["uwsgi", "--http", ":8080", "--gevent", "100"]))
finds("HW313", "a variable, in ms", [web(image="node:22", env=[{"name": "KEEP_ALIVE_TIMEOUT", "value": "5000"}]), service(), ingress("alb")], "env[KEEP_ALIVE_TIMEOUT].value", "risks")
silent("HW313", "a variable that is longer", [web(image="node:22", env=[{"name": "KEEP_ALIVE_TIMEOUT", "value": "75000"}]), service(), ingress("alb")])
finds("HW201", "a hook that never ends", web(lifecycle={"preStop": {"exec": {"command": ["sleep", "infinity"]}}}), "terminationGracePeriodSeconds", "breaks")
finds("HW211", "a program that is not there, and then the pause", hook("sh", "-c", "curl -X POST localhost:8080/drain && sleep 10", image=SLIM), "preStop.exec.command", "breaks")
silent("HW211", "the pause comes anyway", hook("sh", "-c", "curl -X POST localhost:8080/drain; sleep 10", image=SLIM))
silent("HW211", "curl may have been added", hook("sh", "-c", "curl localhost:8080/drain && sleep 10", image=ALPINE))
