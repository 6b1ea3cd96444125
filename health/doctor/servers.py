"""Which server a container runs, and its settings, as far as command, environment and mounted ConfigMaps show them."""

from __future__ import annotations

import ast
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from . import images, shell
from .place import Object, Place
from .workloads import Container, Word


@dataclass(frozen=True, slots=True)
class Option:
    """A setting and its place."""

    value: str
    place: Place  # the list of words, the variable, or the ConfigMap's key
    index: int | None = None  # of the word that is (or ends in) the value, if it can be replaced
    prefix: str = ""  # `--timeout=` if value and option are one word


@dataclass(slots=True)
class Server:
    name: str  # gunicorn, uvicorn, …; "node", "java", "native" for a compiled program, "" if unknown
    container: Container
    options: dict[str, Option] = field(default_factory=dict)
    settled: bool = True  # False if there are settings that cannot be seen
    app: str = ""

    @property
    def place(self) -> Place:
        """Return where its command line is set."""
        return self.container.command_place

    def get(self, name: str) -> str | None:
        option = self.options.get(name)
        return option.value if option else None

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return an option as a number; ``default`` if it is not set, None if it is unclear (``${WORKERS:-4}``)."""
        text = self.get(name)
        if text is None:
            return default
        try:
            return float(text)
        except ValueError:
            return None

    def unclear(self, *names: str) -> bool:
        """Return True if one of the options has an unclear value."""
        return any(name in self.options and self.number(name) is None for name in names)

    @property
    def workers(self) -> int:
        for name in ("workers", "processes"):
            if (number := self.number(name)) is not None:
                return max(1, int(number))
        count = self.container.env.get("WEB_CONCURRENCY", "")
        return int(count) if count.isdigit() and self.name in ("gunicorn", "uvicorn", "puma") and int(count) > 0 else 1


#: Short options, and synonyms. Others keep their long name.
_SHORT: dict[str, dict[str, str]] = {
    "gunicorn": {
        "k": "worker-class",
        "w": "workers",
        "b": "bind",
        "t": "timeout",
        "c": "config",
        "n": "name",
        "p": "pid",
    },
    "uvicorn": {},
    "hypercorn": {"k": "worker-class", "w": "workers", "b": "bind", "c": "config"},
    "daphne": {"b": "bind", "p": "port", "t": "http-timeout"},
    "uwsgi": {"p": "processes", "w": "module"},
    "puma": {"t": "threads", "w": "workers", "b": "bind", "p": "port", "C": "config"},
    "flask": {"h": "host", "p": "port"},
    "waitress": {},
    "granian": {},
    "node": {"p": "port"},
}

#: Options without a value.
_FLAGS = frozenset(
    {
        "reload",
        "preload",
        "access-log",
        "no-access-log",
        "debug",
        "daemon",
        "reuse-port",
        "proxy-headers",
        "master",
        "enable-threads",
        "lazy-apps",
        "factory",
        "die-on-term",
        "vacuum",
        "single-interpreter",
        "http11",
        "no-reload",
    }
)

_WRAPPERS = {
    "tini": 0,
    "dumb-init": 0,
    "opentelemetry-instrument": 0,
    "ddtrace-run": 0,
    "exec": 0,
    "env": 0,
    "nice": 0,
    "catchsegv": 0,
    "poetry": 1,
    "uv": 1,
    "pipenv": 1,
    "bundle": 1,
    "newrelic-admin": 1,
    "pdm": 1,
    "hatch": 1,
}

_PROGRAMS = {
    program: server
    for server, programs in {
        "gunicorn": "gunicorn",
        "uvicorn": "uvicorn fastapi",
        "hypercorn": "hypercorn",
        "daphne": "daphne",
        "uwsgi": "uwsgi",
        "waitress": "waitress-serve",
        "granian": "granian",
        "flask": "flask",
        "puma": "puma rails",
        "node": "node next nuxt tsx bun deno",
        "npm": "npm",
        "yarn": "yarn",
        "pnpm": "pnpm",
        "java": "java",
        "traefik": "traefik",
        "nginx": "nginx",
        "envoy": "envoy",
        "haproxy": "haproxy",
        "caddy": "caddy",
        "python": "python python3",
        "celery": "celery",
        "dotnet": "dotnet",
        "ruby": "ruby",
        "php-fpm": "php-fpm",
    }.items()
    for program in programs.split()
}

_MODULES = {"gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "flask"}


def detect(container: Container, configs: Mapping[tuple[str, str], Object]) -> Server:
    """Detect the server that a container runs; its name is "" if unknown."""
    words = list(_proper(container))
    name, rest = _named(words)
    server = Server(name, container)
    if not name:
        server.name = _by_surroundings(container)
        server.settled = False
    if not container.env_known and server.name in ("gunicorn", "uvicorn", "puma", "granian"):
        server.settled = False
    _read_options(server, rest)
    if server.name == "gunicorn" or "GUNICORN_CMD_ARGS" in container.env:
        _complete_gunicorn(server, configs)
    if server.name in ("uvicorn", "granian"):
        for key, value in container.env.items():
            if key.startswith(f"{server.name.upper()}_"):
                option = key.partition("_")[2].lower().replace("_", "-")
                server.options.setdefault(option, Option(value, container.env_places[key]))
    if any(
        word.text.endswith((".ini", ".toml", ".rb")) and server.name in ("uwsgi", "puma", "hypercorn") for word in rest
    ):
        server.settled = False
    return server


def _proper(container: Container) -> Iterator[Word]:
    """Return the words of the server's own command, without wrappers, from the script if there is one."""
    words = container.words
    texts = [word.text for word in words]
    skip = 0
    while skip < len(texts) and (
        shell.program(texts[skip]) in ("tini", "dumb-init") or (skip and texts[skip] in ("--", "-g", "-s"))
    ):
        skip += 1
    found = shell.invocation(texts[skip:])
    if found is not None:
        script = shell.Script(found.script)
        place = words[skip + found.index].list
        servers = [command for command in script.commands if shell.program(command.program) in _PROGRAMS]
        chosen = servers[-1] if servers else (script.commands[-1] if script.commands else None)
        for text in chosen.proper if chosen else ():
            yield Word(text, place, -1)
        return
    yield from words[skip:]


def _named(words: list[Word]) -> tuple[str, list[Word]]:
    words = list(words)
    while words:
        name = shell.program(words[0].text)
        if name in _WRAPPERS and len(words) > 1:
            words = words[1 + _WRAPPERS[name] :]
            while words and (words[0].text.startswith("-") or re.fullmatch(r"\w+=.*", words[0].text)):
                words = words[1:]
            continue
        name = re.sub(r"^(python|ruby)[\d.]+$", r"\1", name)
        known = _PROGRAMS.get(name, "")
        if known == "python" and len(words) > 2 and words[1].text == "-m":
            module = words[2].text.partition(".")[0]
            return (module if module in _MODULES else "python"), words[3:]
        if known == "python" and len(words) > 1 and words[1].text in ("-u", "-O"):
            words = [words[0], *words[2:]]
            continue
        return known, words[1:] if known else words
    return "", []


def _by_surroundings(container: Container) -> str:
    image = images.read(container.image)
    if re.search(r"(jre|jdk|temurin|java)", image.name + image.tag) or any(
        key.startswith(("SPRING_", "JAVA_", "JDK_JAVA")) for key in container.env
    ):
        return "java"
    if re.search(r"(^|/)node(js)?\d*(-|$)", image.name):
        return "node"
    for name in ("traefik", "nginx", "envoy", "haproxy", "caddy"):
        if image.name.rpartition("/")[2] == name:
            return name
    if image.base == "distroless" and re.search(r"(static|base)", image.name):
        return "native"
    return ""


def _read_options(server: Server, words: Iterable[Word]) -> None:
    short = _SHORT.get(server.name, {})
    rest = list(words)
    number = 0
    while number < len(rest):
        word = rest[number]
        number += 1
        text = word.text
        if text.startswith("--"):
            name, equals, value = text[2:].partition("=")
            if equals:
                server.options[name] = Option(value, word.list, word.index, f"--{name}=")
                continue
        elif re.match(r"-[A-Za-z]", text) and len(text) == 2:
            name = short.get(text[1], text[1])
        elif re.match(r"-[A-Za-z]", text) and text[1] in short:
            server.options[short[text[1]]] = Option(text[2:].lstrip("="), word.list, word.index, text[:2])
            continue
        elif re.match(r"-[A-Za-z][\w.-]+=", text):  # Go's flags accept one dash, too
            name, _, value = text[1:].partition("=")
            server.options[name] = Option(value, word.list, word.index, f"-{name}=")
            continue
        else:
            if not server.app:
                server.app = text
            continue
        if name in _FLAGS or number >= len(rest) or rest[number].text.startswith("--"):
            server.options[name] = Option("", word.list, None)
        else:
            server.options[name] = Option(rest[number].text, rest[number].list, rest[number].index)
            number += 1


def _complete_gunicorn(server: Server, configs: Mapping[tuple[str, str], Object]) -> None:
    """gunicorn reads its file first, then GUNICORN_CMD_ARGS, then the command line; the last wins."""
    container = server.container
    variable = container.env.get("GUNICORN_CMD_ARGS")
    if variable:
        other = Server("gunicorn", container)
        place = container.env_places["GUNICORN_CMD_ARGS"]
        try:
            words = shlex.split(variable)
        except ValueError:
            words = []
        _read_options(other, [Word(text, place, -1) for text in words])
        for name, option in other.options.items():
            server.options.setdefault(name, Option(option.value, option.place))
        if server.name == "":
            server.name = "gunicorn"
    elif variable == "":
        server.settled = False
    path = server.get("config")
    if path is None:
        return
    found = mounted(container, path.removeprefix("file:"), configs)
    if found is None:
        server.settled = False
        return
    values, complete = _assignments(found.text or "")
    server.settled = server.settled and complete
    for name, value in values.items():
        server.options.setdefault(name.replace("_", "-"), Option(value, found))


def _assignments(source: str) -> tuple[dict[str, str], bool]:
    """Return the literal assignments of a gunicorn configuration, and whether these are all."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return {}, False
    found: dict[str, str] = {}
    complete = True
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                found[statement.targets[0].id] = str(ast.literal_eval(statement.value))
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                complete = False
    return found, complete


def mounted(container: Container, path: str, configs: Mapping[tuple[str, str], Object]) -> Place | None:
    """Find the ConfigMap's key that is mounted at a path."""
    for folder, volume_name in container.mounts.items():
        for volume in container.workload.pod.get("volumes").items():
            if volume.get("name").text != volume_name or not volume.get("configMap"):
                continue
            config = configs.get((container.workload.object.namespace, volume.get("configMap", "name").text or ""))
            if config is None:
                continue
            for key, place in config.at("data").entries():
                if path in (posixpath.join(folder, key), folder) or (
                    not path.startswith("/") and posixpath.basename(path) == key
                ):
                    return place
    return None


def mounted_texts(container: Container, configs: Mapping[tuple[str, str], Object]) -> Iterator[Place]:
    """Yield every key of every ConfigMap that the container mounts."""
    names = set(container.mounts.values())
    for volume in container.workload.pod.get("volumes").items():
        if volume.get("name").text in names and volume.get("configMap"):
            config = configs.get((container.workload.object.namespace, volume.get("configMap", "name").text or ""))
            if config is not None:
                for _, place in config.at("data").entries():
                    yield place
