"""HW1xx: probes."""

from __future__ import annotations

from tests.doctor.cases import (
    ALPINE,
    DISTROLESS,
    GUNICORN,
    ONE_PORT,
    SLIM,
    UVICORN,
    finds,
    probe,
    run,
    silent,
    web,
)
from tests.doctor.manifests import container, deployment, service

# ── HW10x: what probes ask
finds("HW101", "readiness at /sse", web(readinessProbe=probe("/sse")), "readinessProbe.httpGet.path", "breaks")
finds("HW101", "startup at the named stream", web(startupProbe=probe("/live/prices")), "startupProbe.httpGet.path", "breaks", "/live/prices")
finds("HW101", "liveness at /events", web(livenessProbe=probe("/events?channel=a")), "livenessProbe.httpGet.path", "risks")
finds(
    "HW101", "a header asks for a stream",
    web(readinessProbe={"httpGet": {"path": "/mcp", "port": 8080, "httpHeaders": [{"name": "accept", "value": "text/event-stream"}]}}),
    "readinessProbe.httpGet.path", "breaks",
)  # fmt: skip
silent("HW101", "a health route below the stream's", web(readinessProbe=probe("/events/health")))
silent("HW101", "another path than the named one", web(readinessProbe=probe("/events")), "/stream")
silent("HW101", "liveness at /live", web(livenessProbe=probe("/live")))
silent("HW101", "a dead letter queue's updates", web(readinessProbe=probe("/updates/healthz")))

finds("HW102", "curl of a stream", web(livenessProbe=run("curl", "-sN", "http://localhost:8080/events")), "livenessProbe.exec.command", "breaks")
finds("HW102", "in a shell", web(readinessProbe=run("sh", "-c", "curl -s http://localhost/sse || exit 1")), "readinessProbe.exec.command", "breaks")
silent("HW102", "one line of it", web(readinessProbe=run("sh", "-c", "curl -sN -m 3 http://localhost/sse | grep -q data")))
silent("HW102", "its head", web(readinessProbe=run("curl", "-I", "http://localhost/sse")))
silent("HW102", "a health route", web(readinessProbe=run("curl", "-f", "http://localhost/healthz")))

SAME = probe("/healthz", "http", periodSeconds=10, failureThreshold=3, timeoutSeconds=5)
finds("HW103", "the same numbers", web(ports=ONE_PORT, livenessProbe=SAME, readinessProbe=SAME), "livenessProbe", "risks")
finds(
    "HW103", "liveness first",
    web(ports=ONE_PORT, livenessProbe=SAME, readinessProbe={**SAME, "failureThreshold": 6}), "livenessProbe", "risks",
)  # fmt: skip
silent("HW103", "six times as patient", web(livenessProbe={**SAME, "failureThreshold": 18}, readinessProbe=SAME))
finds("HW103", "another question, and sooner", web(livenessProbe={**SAME, "periodSeconds": 5}, readinessProbe=probe("/readyz", "http")), "livenessProbe", "risks")
silent("HW103", "another question", web(livenessProbe=SAME, readinessProbe=probe("/readyz", "http")))
silent("HW103", "no readiness", web(livenessProbe=SAME, readinessProbe=None))
silent("HW103", "a database", deployment(container(image="redis:7", livenessProbe=SAME, readinessProbe=SAME)))

finds("HW104", "gevent and one port", web(command=GUNICORN, args=["-k", "gevent"], ports=ONE_PORT, livenessProbe=probe()), "livenessProbe", "risks")
finds("HW104", "a configuration that cannot be seen", web(command=["gunicorn", "-c", "conf.py", "shop:app"], ports=ONE_PORT, livenessProbe=probe()), "livenessProbe", "risks")
silent("HW104", "a port of its own", web(command=GUNICORN))
silent("HW104", "uvicorn's worker has no pool", web(command=[*GUNICORN, "-k", "uvicorn.workers.UvicornWorker"], ports=ONE_PORT, livenessProbe=probe()))
silent("HW104", "a connection is enough", web(command=GUNICORN, ports=ONE_PORT, livenessProbe={"tcpSocket": {"port": 8080}}))
silent("HW104", "a Go server", web(image=DISTROLESS, command=["/shop"], ports=ONE_PORT, livenessProbe=probe()))

finds("HW105", "Spring's aggregate", web(livenessProbe=probe("/actuator/health", failureThreshold=6)), "livenessProbe.httpGet.path", "risks")
finds("HW105", "a readiness route", web(livenessProbe=probe("/health/ready", failureThreshold=6)), "livenessProbe.httpGet.path", "risks")
finds("HW105", "another host", web(livenessProbe=run("sh", "-c", "nc -z db 5432")), "livenessProbe.exec.command", "risks")
silent("HW105", "Spring's liveness", web(livenessProbe=probe("/actuator/health/liveness", failureThreshold=6)))
silent("HW105", "its own host", web(livenessProbe=run("sh", "-c", "nc -z localhost 8080")))
silent("HW105", "/already", web(livenessProbe=probe("/already", failureThreshold=6)))

HOST = {"httpGet": {"path": "/healthz", "port": 8080, "host": "127.0.0.1"}}
finds("HW106", "loopback is the node's", web(readinessProbe=HOST), "readinessProbe.httpGet.host", "breaks")
silent("HW106", "on the node's network", deployment(container(readinessProbe=HOST), pod={"hostNetwork": True}))
silent("HW106", "no host", web())

finds("HW107", "readiness", web(readinessProbe=probe(port="probes")), "readinessProbe.httpGet.port", "breaks")
finds("HW107", "liveness tests nothing", web(livenessProbe=probe(port="probes")), "livenessProbe.httpGet.port", "risks")
silent("HW107", "a number that is not declared", web(readinessProbe=probe(port=9999)))
silent("HW107", "a declared name", web())

finds("HW108", "uvicorn on loopback", web(command=UVICORN, readinessProbe=probe(port=8000)), ".command", "breaks")
finds("HW108", "gunicorn's default", web(command=["gunicorn", "-k", "gevent", "shop:app"], readinessProbe=probe(port=8000)), ".command", "risks")
finds("HW108", "another port", web(command=[*UVICORN, "--host", "0.0.0.0", "--port", "9000"], ports=None, livenessProbe=None, startupProbe=None, readinessProbe=probe(port=8000)), "readinessProbe.httpGet.port", "breaks")
silent("HW108", "all addresses", web(command=[*UVICORN, "--host", "0.0.0.0", "--port", "8080"]))
silent("HW108", "a variable says so", web(command=UVICORN, env=[{"name": "UVICORN_HOST", "value": "0.0.0.0"}]))
silent("HW108", "settings that cannot be seen", web(command=["gunicorn", "-c", "conf.py", "shop:app"]))
silent("HW108", "a proxy in the pod", deployment(container(command=UVICORN, readinessProbe=probe(port=8000)), container(name="proxy", image="envoy:1")))

# ── HW11x: commands
finds("HW111", "a file of that name", web(image=ALPINE, readinessProbe=run("sh", "-c", "head -c1 /dev/tcp/localhost/80")), "readinessProbe.exec.command", "breaks")
finds("HW111", "dash", web(image=SLIM, livenessProbe=run("/bin/sh", "-c", "exec 3<>/dev/tcp/127.0.0.1/80")), "livenessProbe.exec.command", "breaks")
finds("HW111", "which sh is not known", web(livenessProbe=run("sh", "-c", "echo > /dev/tcp/localhost/80")), "livenessProbe.exec.command", "risks")
silent("HW111", "bash", web(image=SLIM, livenessProbe=run("bash", "-c", "echo > /dev/tcp/localhost/80")))
silent("HW111", "sh is bash", web(image="registry.access.redhat.com/ubi9/ubi:9", livenessProbe=run("sh", "-c", ": > /dev/tcp/localhost/80")))
silent("HW111", "bash within sh", web(image=SLIM, livenessProbe=run("sh", "-c", "timeout 1 bash -c '</dev/tcp/localhost/80'")))

finds("HW112", "no shell: readiness", web(image=DISTROLESS, readinessProbe=run("sh", "-c", "true && test -f /tmp/up")), "readinessProbe.exec.command", "breaks")
finds("HW112", "no curl: liveness errs", web(image=DISTROLESS, livenessProbe=run("curl", "-f", "http://localhost/")), "livenessProbe.exec.command", "risks")
finds("HW112", "a shell looks in vain", web(image=SLIM, livenessProbe=run("sh", "-c", "curl -f http://localhost/ || exit 1")), "livenessProbe.exec.command", "breaks")
silent("HW112", "BusyBox has wget", web(image=ALPINE, livenessProbe=run("wget", "-q", "--spider", "http://localhost/")))
silent("HW112", "curl may have been added", web(image=ALPINE, livenessProbe=run("curl", "-f", "http://localhost/")))
silent("HW112", "the full image has curl", web(image="python:3.12", livenessProbe=run("curl", "-f", "http://localhost/")))
silent("HW112", "the debug image has BusyBox", web(image="gcr.io/distroless/base:debug", livenessProbe=run("sh", "-c", "wget -q http://localhost/")))
silent("HW112", "a program that nobody knows", web(image=DISTROLESS, livenessProbe=run("/grpc_health_probe")))

finds("HW113", "or true", web(livenessProbe=run("sh", "-c", "curl -f http://localhost/ || true")), "livenessProbe.exec.command", "risks")
finds("HW113", "a pipe", web(readinessProbe=run("sh", "-c", "curl -f http://localhost/ | cat")), "readinessProbe.exec.command", "risks")
finds("HW113", "only sleeps", web(startupProbe=run("sleep", "10")), "startupProbe.exec.command", "risks")
silent("HW113", "grep decides", web(livenessProbe=run("sh", "-c", "redis-cli ping | grep -q PONG")))
silent("HW113", "or exit 1", web(livenessProbe=run("sh", "-c", "wget -q http://localhost/ || exit 1")))
silent("HW113", "pipefail", web(livenessProbe=run("bash", "-c", "set -o pipefail; curl -f http://localhost/ | cat")))

finds("HW114", "one word", web(readinessProbe=run("curl -f http://localhost/")), "readinessProbe.exec.command", "breaks")
finds("HW114", "operators without a shell", web(livenessProbe=run("curl", "-f", "http://localhost/", "||", "exit", "1")), "livenessProbe.exec.command", "breaks")
finds("HW114", "quotes within quotes", web(readinessProbe=run("sh", "-c", "'wget -q http://localhost/'")), "readinessProbe.exec.command", "breaks")
silent("HW114", "a shell reads it", web(livenessProbe=run("sh", "-c", "curl -f http://localhost/ || exit 1")))
silent("HW114", "a quoted word within", web(livenessProbe=run("sh", "-c", "test -f '/tmp/a file'")))

finds("HW115", "python in one second", web(livenessProbe=run("python", "-c", "import urllib.request")), "livenessProbe.timeoutSeconds", "risks")
finds("HW115", "node in a shell", web(readinessProbe=run("sh", "-c", "node check.js")), "readinessProbe.timeoutSeconds", "risks")
silent("HW115", "five seconds", web(livenessProbe=run("python", "check.py", timeoutSeconds=5)))
silent("HW115", "a small program", web(livenessProbe=run("sh", "-c", "redis-cli ping | grep -q PONG")))

# ── HW12x: patience
finds("HW121", "longer", web(readinessProbe=probe(periodSeconds=5, timeoutSeconds=10)), "readinessProbe.timeoutSeconds", "risks")
finds("HW121", "equal", web(livenessProbe=probe(periodSeconds=5, timeoutSeconds=5, failureThreshold=12)), "livenessProbe.timeoutSeconds", "risks")
silent("HW121", "defaults", web(livenessProbe=probe()))
silent("HW121", "below", web(startupProbe=probe(periodSeconds=2, timeoutSeconds=1, failureThreshold=60)))

finds("HW122", "defaults", web(livenessProbe=probe()), "livenessProbe", "risks")
finds("HW122", "twenty-five seconds", web(livenessProbe=probe(timeoutSeconds=5)), "livenessProbe", "note")
silent("HW122", "a minute", web(livenessProbe=probe(timeoutSeconds=5, failureThreshold=6)))
silent("HW122", "a connection", web(livenessProbe={"tcpSocket": {"port": 8080}}))

finds("HW123", "liveness only", web(readinessProbe=None), "readinessProbe", "risks")
finds("HW123", "no probe at all", [deployment(container(readinessProbe=None, livenessProbe=None, startupProbe=None)), service()], "readinessProbe", "risks")
silent("HW123", "the sidecar has one", deployment(container(readinessProbe=None), container(name="proxy", image="registry.example/proxy:1")))
silent("HW123", "a worker that serves nobody", deployment(container(ports=None, readinessProbe=None, livenessProbe=None, startupProbe=None)))
silent("HW123", "a database", deployment(container(image="postgres:16", readinessProbe=None)))

MIGRATES = ["sh", "-c", "alembic upgrade head && exec uvicorn shop:app --host 0.0.0.0 --timeout-graceful-shutdown 9"]
finds("HW124", "it migrates", web(command=MIGRATES, startupProbe=None, livenessProbe=probe(initialDelaySeconds=15)), "startupProbe", "risks")
finds("HW124", "python and the defaults", web(command=GUNICORN, startupProbe=None, livenessProbe=probe(port="health")), "startupProbe", "risks")
finds("HW124", "nothing is known", web(startupProbe=None, livenessProbe=probe()), "startupProbe", "note")
silent("HW124", "a patient liveness", web(startupProbe=None, livenessProbe=probe(periodSeconds=20, failureThreshold=6)))
silent("HW124", "no liveness", web(startupProbe=None, livenessProbe=None))

finds("HW125", "fifteen seconds", web(startupProbe=probe(periodSeconds=5)), "startupProbe.failureThreshold", "risks")
finds("HW125", "forty seconds", web(startupProbe=probe(failureThreshold=4)), "startupProbe.failureThreshold", "note")
silent("HW125", "two minutes", web())

LIMITED = [{"name": "RATELIMIT_DEFAULT", "value": "10 per minute"}]
finds("HW126", "more probes than that", web(env=LIMITED), "env[RATELIMIT_DEFAULT].value", "risks")
finds("HW126", "more than half", web(env=[{"name": "RATE_LIMIT_PER_MINUTE", "value": "30"}]), "env[RATE_LIMIT_PER_MINUTE].value", "note")
silent("HW126", "a generous limit", web(env=[{"name": "RATELIMIT_DEFAULT", "value": "1000/minute"}]))
silent("HW126", "no limit of requests", web(env=[{"name": "LIMIT", "value": "10"}]))


finds("HW127", "uvicorn's loop", web(command=[*UVICORN, "--host", "0.0.0.0"], ports=ONE_PORT, readinessProbe=probe(port=8080)), "readinessProbe.timeoutSeconds", "note")
silent("HW127", "two seconds", web(command=UVICORN, ports=ONE_PORT, readinessProbe=probe(timeoutSeconds=2)))
silent("HW127", "a Go server", web(image=DISTROLESS, command=["/shop"], ports=ONE_PORT, readinessProbe=probe()))
silent("HW121", "a probe that only sleeps", web(startupProbe=run("sleep", "20", timeoutSeconds=30, failureThreshold=1)))
finds("HW105", "Quarkus' aggregate", web(livenessProbe=probe("/q/health", failureThreshold=6)), "livenessProbe.httpGet.path", "risks")
finds("HW105", "by its query", web(livenessProbe=probe("/health?check=db", failureThreshold=6)), "livenessProbe.httpGet.path", "risks")
finds("HW105", "a script that asks Redis", web(livenessProbe=run("python", "-c", "import redis; redis.Redis(host='cache').ping()", timeoutSeconds=5)), "livenessProbe.exec.command", "risks")
silent("HW105", "a script that asks itself", web(livenessProbe=run("python", "-c", "import urllib.request as u; u.urlopen('http://localhost:8080/healthz')", timeoutSeconds=5)))
silent("HW112", "a pipe swallows the 127", web(image=SLIM, livenessProbe=run("sh", "-c", "curl -f http://localhost/ | cat")))
finds("HW112", "a pipe whose end notices", web(image=SLIM, livenessProbe=run("sh", "-c", "curl -s http://localhost/ | grep -q ok")), "livenessProbe.exec.command", "breaks")
silent("HW111", "it passes whatever happens", web(image=SLIM, livenessProbe=run("sh", "-c", "echo > /dev/tcp/localhost/80 || true")))
