"""``headwater config``: every setting, and where it is from."""

from __future__ import annotations

from pathlib import Path

from sse.settings import Settings
from tests.command.run import headwater


def rows(text: str) -> dict[str, tuple[str, str]]:
    """By name: value, and source."""
    found = {}
    for line in text.splitlines():
        name, value, *source = line.split()
        found[name] = (value, " ".join(source))
    return found


def test_every_setting_is_listed_with_its_default() -> None:
    done = headwater("config")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(rows(done.stdout)) == list(Settings.names())
    assert rows(done.stdout)["SSE_HEARTBEAT"] == ("15", "default")


def test_it_says_what_the_environment_and_the_file_set_and_masks_secrets(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("# as mounted\nSSE_RETRY=300\nSSE_HEARTBEAT=\nSSE_HARTBEAT=2\n")
    env = {
        "SSE_CONFIG_FILE": str(file),
        "SSE_RETRY": "500",
        "SSE_HEARTBEAT": "5",
        "SSE_PUBLISH_KEY": "hunter2hunter2hunter2",
        "SSE_LOG": "redis://:hunter2@h:6379/0",
        "SSE_MAX_STREAM": "9",
        "PORT": "",
    }
    done = headwater("config", "--set", **env)
    assert done.returncode == 0 and rows(done.stdout) == {
        "SSE_CONFIG_FILE": (str(file), "environment"),
        "SSE_LOG": ("redis://***@h:6379/0", "environment"),
        "SSE_RETRY": ("300", f"{file}, line 2"),
        "SSE_HEARTBEAT": ("5", "environment"),
        "SSE_PUBLISH_KEY": ("***", "environment"),
    }
    assert "hunter2" not in done.stdout + done.stderr
    assert [line.partition(" is not a setting")[0] for line in done.stderr.splitlines()] == [
        "headwater: SSE_MAX_STREAM",
        f"headwater: SSE_HARTBEAT in {file}, line 4",
    ]


def test_what_cannot_be_used_is_told_a_line_each_with_status_2(tmp_path: Path) -> None:
    done = headwater("config", PORT="70000", SSE_PUBLISH_KEY="hunter2", SSE_CONFIG_FILE="")
    assert (done.returncode, done.stdout) == (2, "") and "hunter2" not in done.stderr
    assert [line.partition("=")[0] for line in done.stderr.splitlines()] == ["headwater: PORT", "headwater: SSE_PUBLISH_KEY"]
    gone = headwater("config", SSE_CONFIG_FILE=str(tmp_path / "none"))
    assert gone.returncode == 2 and gone.stderr.startswith("headwater: SSE_CONFIG_FILE=")
