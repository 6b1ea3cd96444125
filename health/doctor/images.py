"""What is in an image, as far as its name tells. Nothing is pulled; anything else is unknown."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Images of backends, at which no client's stream ends.
_BACKENDS = re.compile(
    r"(^|/)(redis(-stack)?(-server)?|valkey|keydb|dragonfly|postgres(ql)?|pgbouncer|mysql|mariadb|mongo(db)?|memcached|rabbitmq|kafka|"
    r"zookeeper|elasticsearch|opensearch|cassandra|minio|etcd|clickhouse(-server)?|nats|busybox|pause|"
    r"prometheus|alertmanager|grafana|loki|promtail|fluentd|fluent-bit|timberio/vector|node-exporter|[a-z-]*exporter|"
    r"opentelemetry-collector[a-z-]*|otel-collector|cloud-sql-proxy|cloudsql-proxy|vault|vault-k8s|cert-manager[a-z-]*|"
    r"external-dns|celery|flower|mailhog|localstack|istio-proxy|proxyv2|linkerd-proxy|datadog-agent)$"
)

#: Official images whose plain tags are Debian with curl and wget (buildpack-deps).
_FULL = frozenset({"python", "node", "ruby", "golang", "openjdk", "perl", "rust", "php"})

#: Official images that are Debian or Ubuntu, unless their tag names another system.
_DEBIANS = frozenset({"nginx", "httpd", "eclipse-temurin", "tomcat", "jetty", "gunicorn", "pypy", "erlang", "elixir"})

#: Official images that add only a language, so that the base tells what is missing.
_BARE = frozenset("python node ruby golang rust openjdk perl alpine debian ubuntu".split())

_BUSYBOX = frozenset("sh ash nc wget timeout sleep grep cat head test true pgrep pkill killall kill ps netstat".split())
_DEBIAN = frozenset("sh dash bash sleep cat head timeout test true grep sed kill ls".split())

#: Programs whose absence from an image can be known; about others the doctor says nothing.
TOOLS = frozenset(
    {
        "sh",
        "bash",
        "ash",
        "curl",
        "wget",
        "nc",
        "ncat",
        "netcat",
        "sleep",
        "cat",
        "test",
        "ps",
        "pgrep",
        "pkill",
        "killall",
        "timeout",
        "ss",
        "netstat",
        "grep",
        "kill",
    }
)


@dataclass(frozen=True)
class Image:
    """A repository without the registry's host, a tag, and what follows from them."""

    name: str
    tag: str
    base: str  # "distroless", "scratch", "alpine", "debian-slim", "debian", "redhat" or ""
    official: bool  # only the language was added to the base

    @property
    def backend(self) -> bool:
        return bool(_BACKENDS.search(self.name))

    @property
    def sh(self) -> str:
        """Return which shell /bin/sh is: dash, ash, bash, none, or "" if unknown."""
        return {"distroless": "none", "alpine": "ash", "debian-slim": "dash", "debian": "dash", "redhat": "bash"}.get(
            self.base, ""
        )

    def has(self, name: str) -> bool | None:
        """Return True, False, or None if unknown."""
        if name not in TOOLS:
            return None
        if self.base == "distroless":
            return False
        if self.base == "alpine":
            if name in _BUSYBOX:
                return True
            return False if self.official else None
        if self.base in ("debian-slim", "debian"):
            if name in _DEBIAN:
                return True
            if self.base == "debian-slim" and self.official:
                return False
            return True if self.official and name in ("curl", "wget") else None
        return None


def read(text: str) -> Image:
    """Read a name like ``registry.example/team/shop:1.4-alpine``."""
    text = text.partition("@")[0]
    head, _, last = text.rpartition("/")
    name, _, tag = last.partition(":")
    path = f"{head}/{name}" if head else name
    host = head.partition("/")[0]
    library = not head or path in (f"library/{name}", f"docker.io/library/{name}") or head == "docker.io"
    tag = tag.lower()
    whole = f"{path}:{tag}".lower()
    debug = bool(re.search(r"(^|-)(debug|dev)(-|$)", tag))
    if ("distroless" in whole or host == "cgr.dev") and not debug:
        return Image(path, tag, "distroless", True)
    bare = library and name in _BARE
    if re.search(r"\balpine", tag) or name in ("alpine", "busybox"):
        return Image(path, tag, "alpine", bare)
    if re.search(r"\bslim\b", tag):
        return Image(path, tag, "debian-slim", bare)
    if library and name in ("debian", "ubuntu"):
        return Image(path, tag, "debian-slim", True)
    if re.search(r"\b(bookworm|bullseye|trixie|buster|jammy|noble|focal|debian|ubuntu)\b", tag):
        return Image(path, tag, "debian", bare)
    if re.search(r"\bubi\d?(-|/|$)", path) or re.search(
        r"\b(centos|fedora|rocky|alma|ubi|al2023|amazonlinux)", f"{name}:{tag}"
    ):
        return Image(path, tag, "redhat", library)
    if library and name in _FULL:
        return Image(path, tag, "debian", True)
    if library and name in _DEBIANS:
        return Image(path, tag, "debian", False)
    return Image(path, tag, "", False)
