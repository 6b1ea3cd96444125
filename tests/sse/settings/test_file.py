"""The settings file: its syntax, which value wins, and changes."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sse.settings import Settings, SettingsError
from sse.settings.errors import is_live
from sse.settings.file import MAX_FILE_BYTES, parse
from sse.settings.watch import POLL_INTERVAL, Watch
from tests.support.configmap import ConfigMapVolume
from tests.support.server import ROOT
from tests.support.wait import eventually

KEY, NEW_KEY = "hunter2hunter2hunter2", "hunter3hunter3hunter3"


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigMapVolume:
    """A ConfigMap volume, named by the environment."""
    made = ConfigMapVolume(tmp_path / "config", "SSE_HEARTBEAT=3\n")
    monkeypatch.setenv("SSE_CONFIG_FILE", str(made.file))
    return made


# ── the file ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("# none\n\n", {}, id="comments"),
        pytest.param("A=1\nB=2", {"A": "1", "B": "2"}, id="no-line-break-at-the-end"),
        pytest.param("\ufeffA=1\r\n  B = 2 # two\r\n", {"A": "1", "B": "2"}, id="windows"),
        pytest.param("export A='x y'\nB=\"p\nq\"\nC=", {"A": "x y", "B": "p\nq", "C": ""}, id="quotes"),
        pytest.param("A=a=b#c\nB=${A}$A", {"A": "a=b#c", "B": "${A}$A"}, id="nothing-is-filled-in"),
    ],
)
def test_a_file_has_names_and_values_as_an_env_file(text: str, values: dict[str, str]) -> None:
    assert parse("f", text.encode()).values == values


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(b"A=1\nhunter2\n", "line 2 of f is not NAME=value", id="no-value"),
        pytest.param(b'A=1\n\n\nB="hunter2\n', "line 4 of f is not NAME=value", id="half-a-value"),
        pytest.param(b"A=1\nMIIhunter2=\n", "line 2 of f is not NAME=value", id="a-line-of-a-key-is-not-quoted"),
        pytest.param(b"'A'=1\n=2", "line 2 of f is not NAME=value", id="no-name"),
        pytest.param(b"A=hun\0ter2", "line 1 of f is not NAME=value", id="nul"),
        pytest.param(b"{\"A\": 1}", "line 1 of f is not NAME=value", id="json"),
        pytest.param(b"A: 1", "line 1 of f is not NAME=value", id="yaml"),
        pytest.param(b"A=1\nB=2\nA=3\n", "A is set twice, in lines 1 and 3 of f", id="twice"),
        pytest.param(
            b"SSE_CONFIG_FILE=g",
            "SSE_CONFIG_FILE cannot be set in the file that it names (line 1): it must be set elsewhere",
            id="another-file",
        ),
        pytest.param(
            b"\xff",
            "SSE_CONFIG_FILE='f' cannot be used (not UTF-8): it must be the path of a file of NAME=value lines",
            id="no-text",
        ),
    ],
)
def test_an_invalid_file_is_refused_by_line_number_and_not_quoted(content: bytes, line: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse("f", content)
    assert refused.value.lines == (line,)


def test_each_value_in_the_file_wins_over_the_environments(
    volume: ConfigMapVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSE_HEARTBEAT", "9")
    monkeypatch.setenv("SSE_RETRY", "900")
    monkeypatch.setenv("SSE_MAX_STREAMS", "90")
    volume.write("SSE_HEARTBEAT=3\nSSE_RETRY=\nSSE_SERVER_HEADER=\n")
    settings = Settings.from_environ()
    assert (settings.sse_heartbeat, settings.sse_retry, settings.sse_max_streams) == (3, 900, 90)
    assert settings.sse_server_header == ""
    volume.write("")
    assert Settings.from_environ().sse_heartbeat == 9


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda path: None, "No such file or directory", id="missing"),
        pytest.param(lambda path: path.mkdir(), "not a regular file", id="directory"),
        pytest.param(os.mkfifo, "not a regular file", id="pipe"),
        pytest.param(lambda path: path.write_bytes(b"#" * (MAX_FILE_BYTES + 1)), "larger than 1048576 bytes", id="huge"),
    ],
)
def test_an_unreadable_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "f"
    make(path)
    monkeypatch.setenv("SSE_CONFIG_FILE", str(path))
    with pytest.raises(SettingsError, match=re.escape(f"SSE_CONFIG_FILE='{path}' cannot be used ({reason})")):
        Settings.from_environ()


def test_in_an_app_its_config_names_the_file_which_wins_over_it(volume: ConfigMapVolume) -> None:
    config = {"SSE_HEARTBEAT": 9, "SSE_RETRY": 900, "SSE_CONFIG_FILE": volume.file}
    settings = Settings.from_mapping(config)
    assert (settings.sse_heartbeat, settings.sse_retry) == (3, 900)
    assert Settings.from_mapping({"SSE_HEARTBEAT": 9}).sse_heartbeat == 9, "the environment's file"
    volume.write("LOG_LEVEL=none of ours")
    assert Settings.from_mapping(config).sse_heartbeat == 9


# ── what may change ───────────────────────────────────────────────────────────────────────────────────────────


def test_settings_that_gunicorn_reads_at_its_start_are_not_live() -> None:
    code = (ROOT / "sse" / "serve" / "gunicorn_conf.py").read_text()
    told = {name for name in re.findall(r"settings\.(\w+)", code) if name in Settings.model_fields}
    told |= {"host", "port", "health_port", "sse_drain_delay", "sse_drain_window"}  # through properties
    assert "worker_connections" in told
    assert {name for name in told if is_live(Settings.model_fields[name])} == set()


# ── a change ──────────────────────────────────────────────────────────────────────────────────────────────────


class Watched:
    """A watch that reads the file on demand, and its log lines."""

    def __init__(self, volume: ConfigMapVolume, caplog: pytest.LogCaptureFixture) -> None:
        self.volume = volume
        self.settings = Settings.from_environ()
        self._watch = Watch(self.settings)
        self._caplog = caplog
        self.poll()

    def poll(self, times: int = 2) -> None:
        for _ in range(times):
            self._watch.poll()

    def change(self, text: str) -> list[str]:
        """Return the log lines after a change of the content."""
        self._caplog.clear()
        self.volume.write(text)
        self.poll()
        return self.said()

    def said(self) -> list[str]:
        return [record.getMessage().replace(str(self.volume.file), "FILE") for record in self._caplog.records]


@pytest.fixture
def watched(volume: ConfigMapVolume, caplog: pytest.LogCaptureFixture) -> Watched:
    caplog.set_level(logging.INFO, logger="headwater")
    return Watched(volume, caplog)


def test_a_change_reaches_the_held_settings_and_is_logged(watched: Watched) -> None:
    held = watched.settings
    text = f"SSE_HEARTBEAT=5\nSSE_PUBLISH_KEY={KEY}\nSSE_CORS_ORIGINS=https://a,https://b\nHEALTH_READY_STRICT=1\n"
    assert watched.change(text) == [
        "FILE has changed: SSE_HEARTBEAT 3 → 5, SSE_PUBLISH_KEY none → ***, "
        "SSE_CORS_ORIGINS none → https://a,https://b, HEALTH_READY_STRICT false → true"
    ]
    assert held.sse_heartbeat == 5 and held.sse_cors_origins == ("https://a", "https://b")
    assert watched.change(text.replace(KEY, NEW_KEY)) == ["FILE has changed: SSE_PUBLISH_KEY *** → ***"]
    assert held.sse_publish_key is not None and held.sse_publish_key.get_secret_value() == NEW_KEY
    assert len(watched.change("")) == 1 and held.sse_heartbeat == 15 and held.sse_publish_key is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "SSE_RETRY=100\nSSE_HEARTBEAT=soon",
            "SSE_HEARTBEAT='soon' cannot be used: it must be a number of seconds from 0.01 to 3600 (FILE, line 2)",
            id="value",
        ),
        pytest.param(
            "SSE_RETRY=100\nSSE_PUBLISH_KEY=hunter2",
            "SSE_PUBLISH_KEY=*** cannot be used (a key of less than 16 characters could be guessed): it must be at least "
            "16 letters, digits and - . _ ~ + / (and = at the end) (FILE, line 2)",
            id="secret",
        ),
        pytest.param(
            "SSE_RETRY=100\nSSE_LOG=redis://:hunter2@h:x/0",
            "SSE_LOG='redis://***@h:x/0' cannot be used (",
            id="what-needs-a-restart",
        ),
        pytest.param(
            f"SSE_RETRY=100\nSSE_AUTH=none\nSSE_PUBLISH_KEY={KEY}",
            "SSE_AUTH='none' cannot be used with SSE_PUBLISH_KEY: it must be auto, or no key may be set",
            id="together",
        ),
        pytest.param("SSE_RETRY=100\nSSE_PUBLISH_KEY", "line 2 of FILE is not NAME=value", id="line"),
    ],
)
def test_one_invalid_value_changes_nothing_and_is_logged_once(watched: Watched, text: str, said: str) -> None:
    (line,) = watched.change(text)
    assert line.startswith("FILE is refused, all settings stay as they are: " + said) and "hunter2" not in line
    assert (watched.settings.sse_heartbeat, watched.settings.sse_retry) == (3, 2000)
    watched.poll(5)
    assert len(watched.said()) == 1
    assert watched.change("SSE_HEARTBEAT=3") == ["FILE can be used again; no setting has changed"]


def test_a_registered_check_can_refuse_a_change_for_everybody(watched: Watched) -> None:
    done: list[float] = []

    def prepare(new: Settings) -> Callable[[], None]:
        if new.sse_heartbeat == 13:
            raise ValueError("SSE_HEARTBEAT: bad luck")
        return lambda: done.append(new.sse_heartbeat)

    watched.settings.on_change(lambda new: lambda: done.append(0))
    watched.settings.on_change(prepare)
    assert watched.change("SSE_HEARTBEAT=13") == [
        "FILE is refused, all settings stay as they are: SSE_HEARTBEAT: bad luck"
    ]
    assert done == [] and watched.settings.sse_heartbeat == 3
    watched.change("SSE_HEARTBEAT=14")
    assert done == [0, 14]


def test_settings_that_need_a_restart_stay_and_the_others_change(watched: Watched) -> None:
    text = "SSE_HEARTBEAT=5\nWEB_CONCURRENCY=2\nSSE_LOG=redis://:hunter2@h/0"
    restart = "FILE: a restart is needed for WEB_CONCURRENCY 1 → 2, SSE_LOG sqlite:///var/headwater.db → redis://***@h/0"
    assert watched.change(text) == ["FILE has changed: SSE_HEARTBEAT 3 → 5", restart]
    assert (watched.settings.web_concurrency, watched.settings.sse_heartbeat) == (1, 5)
    assert watched.change(text + "\nSSE_RETRY=100") == ["FILE has changed: SSE_RETRY 2000 → 100"]


def test_a_missing_file_changes_nothing_and_is_logged_once(watched: Watched, tmp_path: Path) -> None:
    watched.volume.path.rename(tmp_path / "away")
    watched.poll(5)
    assert watched.said() == [
        "SSE_CONFIG_FILE='FILE' cannot be used (No such file or directory): it must be the path of a file of "
        "NAME=value lines; all settings stay as they are"
    ]
    (tmp_path / "away").rename(watched.volume.path)
    watched.poll()
    assert watched.said()[1:] == ["FILE can be used again; no setting has changed"]
    assert watched.settings.sse_heartbeat == 3


def test_a_partly_written_file_is_not_applied(watched: Watched) -> None:
    for text in ("", "SSE_HEART", "SSE_HEARTBEAT=1", "SSE_HEARTBEAT=17\n"):
        watched.volume.write(text)
        watched.poll(1)
    assert watched.said() == [] and watched.settings.sse_heartbeat == 3
    watched.poll(1)
    assert watched.settings.sse_heartbeat == 17


def test_an_unknown_name_is_logged(watched: Watched) -> None:
    assert watched.change("SSE_HARTBEAT=1") == [
        "SSE_HARTBEAT in FILE, line 1 is not a setting (did you mean SSE_HEARTBEAT?); it is ignored",
        "FILE has changed: SSE_HEARTBEAT 3 → 15",
    ]


@pytest.mark.parametrize("levels", [("info", "error"), ("error", "info")], ids=" to ".join)
def test_a_change_of_the_log_level_does_not_suppress_its_own_line(
    volume: ConfigMapVolume, capsys: pytest.CaptureFixture[str], levels: tuple[str, str]
) -> None:
    from sse.observe import logging as logs

    volume.write(f"LOG_LEVEL={levels[0]}")
    settings = Settings.from_environ()
    logger = logging.getLogger("headwater")
    handler = logging.StreamHandler(sys.stdout)
    before = logger.level
    logger.addHandler(handler)
    try:
        logger.setLevel(levels[0].upper())
        logs.follow(settings)
        watch = Watch(settings)
        volume.write(f"LOG_LEVEL={levels[1]}")
        watch.poll()
        watch.poll()
        assert capsys.readouterr().out.endswith(f"LOG_LEVEL {levels[0]} → {levels[1]}\n")
        assert logger.level == getattr(logging, levels[1].upper())
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def test_only_with_a_file_a_thread_watches_it(
    volume: ConfigMapVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_environ()
    watch = Watch(settings)
    watch.start()
    volume.write("SSE_HEARTBEAT=8")
    eventually(lambda: settings.sse_heartbeat == 8, 10 * POLL_INTERVAL)
    watch.stop()
    monkeypatch.delenv("SSE_CONFIG_FILE")
    watch = Watch(Settings.from_environ())
    watch.start()
    assert watch._thread is None


# ── the processes ─────────────────────────────────────────────────────────────────────────────────────────────


def run(code: str, **environ: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **{name: str(value) for name, value in environ.items()}},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_an_invalid_file_ends_the_start_as_an_invalid_setting_does(volume: ConfigMapVolume) -> None:
    volume.write("SSE_HEARTBEAT=soon\nSSE_PUBLISH_KEY=hunter2")
    ended = run("import settings; settings.load()", SSE_CONFIG_FILE=volume.file, LOG_FORMAT="text")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 2) and "hunter2" not in ended.stderr
    assert ended.stderr.startswith("headwater: SSE_HEARTBEAT='soon' cannot be used: it must be a number of seconds")


# A master loads the settings; one worker applies a change; another is forked after the file has become LATER.
FORKED = """
import os, pathlib, settings
from sse.settings.watch import Watch
file = pathlib.Path(os.environ["SSE_CONFIG_FILE"])
def forked(work):
    if not (pid := os.fork()):
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
def first():
    watch = Watch(settings.load())
    file.write_text("SSE_HEARTBEAT=4\\nSSE_LOG=sqlite:///b.db\\n")
    watch.poll(), watch.poll()
def second():
    file.write_text(LATER)
    loaded = settings.load()
    print(loaded.sse_heartbeat, loaded.sse_log, loaded.sse_retry, flush=True)
settings.load()
forked(first)
forked(second)
file.write_text(LATER)
loaded = settings.load()
print(loaded.sse_heartbeat, loaded.sse_log, loaded.sse_retry, flush=True)
"""


@pytest.mark.parametrize(
    ("later", "worker", "reloaded"),
    [
        pytest.param(
            "SSE_HEARTBEAT=4\nSSE_LOG=sqlite:///b.db\nSSE_RETRY=50",
            "4.0 sqlite:///a.db 50",
            "4.0 sqlite:///b.db 50",
            id="valid: but a worker uses its siblings' log",
        ),
        pytest.param("SSE_HEARTBEAT", "4.0 sqlite:///a.db 2000", "4.0 sqlite:///b.db 2000", id="invalid: the last good one"),
    ],
)
def test_a_replaced_worker_uses_the_same_settings_as_its_siblings(
    tmp_path: Path, later: str, worker: str, reloaded: str
) -> None:
    file = tmp_path / "f"
    file.write_text("SSE_HEARTBEAT=3\nSSE_LOG=sqlite:///a.db\n")
    ended = run(f"LATER = {later!r}\n{FORKED}", SSE_CONFIG_FILE=file)
    assert ended.stdout.splitlines() == [worker, reloaded], ended.stderr
    assert ("the last settings that could be used still count" in ended.stderr) == ("=" not in later)
