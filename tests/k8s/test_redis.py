"""The StatefulSet's own command, configuration and probe with a real redis-server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.k8s.manifests import find, plain, pod_spec
from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.wait import eventually


@pytest.mark.parametrize("password", [pytest.param("", id="no password"), pytest.param("s3cret-pass_word", id="one")])
def test_redis_starts_with_our_configuration_and_its_probe_passes(tmp_path: Path, password: str) -> None:
    """Catches: a directive that Redis does not know, a password that does not arrive or that the process list shows."""
    require_program("redis-server", "redis-server")
    require_program("redis-cli", "redis-tools")
    reserved = ReservedPort()
    container = pod_spec(find(plain(), "StatefulSet", "headwater-redis"))["containers"][0]
    config = find(plain(), "ConfigMap", "headwater-redis")["data"]["redis.conf"]
    assert config.count("dir /data\n") == 1
    path = tmp_path / "redis.conf"
    local = f"dir {tmp_path}\nport {reserved.number}\nbind 127.0.0.1\n"
    path.write_text(config.replace("dir /data\n", local))
    command = [word.replace("/etc/redis/redis.conf", str(path)) for word in container["command"]]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | ({"REDISCLI_AUTH": password} if password else {})
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    reaper.watch(process.pid)

    def ask(words: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        local = [word.replace("redis-cli ", f"redis-cli -p {reserved.number} ") for word in words]
        return subprocess.run(local, env=environ, capture_output=True, text=True, timeout=10, check=False)

    try:
        probe = container["startupProbe"]["exec"]["command"]
        said = (tmp_path / "output").read_text
        eventually(lambda: ask(probe, env).returncode == 0, 10, lambda: said())
        assert container["livenessProbe"]["exec"] == container["readinessProbe"]["exec"] == {"command": probe}
        stranger = ask(["sh", "-c", "redis-cli ping"], {"PATH": env["PATH"]})
        assert ("NOAUTH" in stranger.stdout) == bool(password)
        # `exec`: PID 1 of the container is Redis itself.
        assert Path(f"/proc/{process.pid}/comm").read_text().strip() == "redis-server"
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert not password or password.encode() not in shown
        settings = ask(["sh", "-c", "redis-cli config get appendonly; redis-cli config get maxmemory-policy"], env)
        assert settings.stdout.split() == ["appendonly", "yes", "maxmemory-policy", "noeviction"]
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)
        reaper.release(process.pid)
        reserved.release()
