"""The image, built from the Dockerfile on Debian's packages, and run as in a cluster: as its user, without capabilities,
on a read-only root file system. Takes minutes, so it is slow; needs root."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sse.settings import Settings
from tests.k8s.manifests import find, plain, pod_spec
from tests.k8s.policy import quantity
from tests.support.ports import ReservedPort
from tests.support.programs import require_program
from tests.support.reaper import reaper
from tests.support.server import ROOT
from tests.support.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: A mount namespace in which crun finds the one cgroup hierarchy that it knows.
APART = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
IN_ONE_HIERARCHY = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\""

OUR_MEGABYTES = 120


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the image; return the directory with its ``rootfs`` and ``image.json``. ``HEADWATER_IMAGE_DIR`` keeps base
    images and wheels between runs."""
    for program in ("buildah", "mmdebstrap", "crun"):
        require_program(program, program)
    if os.geteuid() != 0:
        pytest.skip("needs root: a chroot is built")
    directory = Path(os.environ.get("HEADWATER_IMAGE_DIR") or tmp_path_factory.mktemp("image"))
    done = subprocess.run(
        [str(ROOT / "deploy" / "build-local-image.sh"), str(directory)],
        capture_output=True, text=True, timeout=800, check=False, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class Container:
    """The image under crun with what the Deployment says: user, no capabilities, no new privileges, read-only root,
    its command, /tmp in memory. The network is this machine's, on free ports of 127.0.0.1."""

    def __init__(self, rootfs: Path, bundle: Path) -> None:
        self._ports = ReservedPort(), ReservedPort()
        self.port, self.health_port = (port.number for port in self._ports)
        self._bundle = bundle
        self._name = f"headwater-test-{os.getpid()}"
        self.log = bundle / "output"
        pod = pod_spec(find(plain(), "Deployment", "headwater"))
        built = json.loads((rootfs.parent / "image.json").read_text())["OCIv1"]["config"]
        env = [*built["Env"], "HOST=127.0.0.1", f"PORT={self.port}", f"HEALTH_PORT={self.health_port}"]
        kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
        mounts = {"/proc": "proc", "/dev": "tmpfs", "/dev/shm": "tmpfs", "/tmp": "tmpfs", "/data": "tmpfs"}
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": pod["securityContext"]["runAsUser"], "gid": pod["securityContext"]["runAsGroup"]},
                "args": pod["containers"][0]["command"],
                "env": env,
                "cwd": built["WorkingDir"],
                "capabilities": {kind: [] for kind in kinds},
                "noNewPrivileges": True,
            },
            "root": {"path": str(rootfs), "readonly": True},
            "mounts": [
                {
                    "destination": place,
                    "type": kind,
                    "source": kind,
                    "options": ["nosuid"] + (["mode=1777"] if place in ("/tmp", "/data", "/dev/shm") else []),
                }
                for place, kind in mounts.items()
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }
        (bundle / "config.json").write_text(json.dumps(config))
        self._began = time.monotonic()
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                self._crun("--cgroup-manager=disabled", "run", "-b", str(bundle), self._name),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )
        reaper.watch(self._process.pid)

    @staticmethod
    def _crun(*arguments: str) -> list[str]:
        return [*APART, IN_ONE_HIERARCHY, "sh", "crun", *arguments]

    def wait_started(self) -> float:
        """Return the seconds until /startupz. Skip the test if this machine cannot run a container."""

        def answers() -> bool:
            if self._process.poll() is not None:
                text = self.log.read_text(errors="replace")
                if "headwater" not in text and "gunicorn" not in text:
                    pytest.skip(f"this machine does not allow a container: {text.strip()[-200:]}")
                raise AssertionError(text[-3000:])
            try:
                url = f"http://127.0.0.1:{self.health_port}/startupz"
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return bool(answer.status == 200)
            except (OSError, urllib.error.URLError):
                return False

        eventually(answers, 30, lambda: self.log.read_text(errors="replace")[-3000:])
        return time.monotonic() - self._began

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another process in it, like `kubectl exec` or an exec probe."""
        return subprocess.run(
            self._crun("exec", "--user", "10001:10001", "--cwd", "/app", self._name, *command),
            capture_output=True, text=True, timeout=30, check=False,
        )

    @property
    def pids(self) -> list[int]:
        """Return the container's PID 1 and its children, by the machine's numbers."""
        done = subprocess.run(self._crun("state", self._name), capture_output=True, text=True, timeout=30, check=True)
        main = int(json.loads(done.stdout)["pid"])
        return [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]

    def terminate(self) -> int:
        """Send SIGTERM to PID 1, as the kubelet does; return the exit status."""
        subprocess.run(self._crun("kill", self._name, "TERM"), timeout=30, check=True)
        return self._process.wait(Settings().termination_grace)

    def close(self) -> None:
        subprocess.run(self._crun("delete", "--force", self._name), capture_output=True, timeout=30, check=False)
        self._process.kill()
        self._process.wait(10)
        reaper.release(self._process.pid)
        for port in self._ports:
            port.release()


@pytest.fixture
def container(image: Path, tmp_path: Path) -> Iterator[Container]:
    running = Container(image / "rootfs", tmp_path)
    try:
        yield running
    finally:
        running.close()


def _megabytes(*paths: Path) -> int:
    done = subprocess.run(["du", "-sm", "--total", *map(str, paths)], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def test_it_is_small_and_has_neither_compiler_nor_pip(image: Path) -> None:
    rootfs = image / "rootfs"
    ours = _megabytes(rootfs / "opt", rootfs / "app", rootfs / "data")
    print(f"image: {_megabytes(rootfs)} MB unpacked, {ours} MB of it ours")
    assert ours < OUR_MEGABYTES
    found = [
        str(path.relative_to(rootfs))
        for folder in ("usr/bin", "usr/local/bin", "opt/venv/bin")
        if (rootfs / folder).exists()
        for path in (rootfs / folder).iterdir()
        if path.name.startswith(("gcc", "g++", "cc1", "clang", "pip", "make"))
    ]
    assert found == []
    assert not list((rootfs / "opt/venv").rglob("pip"))


def test_its_configuration_is_the_dockerfiles(image: Path) -> None:
    config: dict[str, Any] = json.loads((image / "image.json").read_text())["OCIv1"]["config"]
    assert (config["User"], config["StopSignal"], config["WorkingDir"]) == ("10001:10001", "SIGTERM", "/app")
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}
    labels = {name for name in config["Labels"] if name.startswith("org.opencontainers.image.")}
    assert {name.rpartition(".")[2] for name in labels} >= {"title", "description", "version", "revision", "licenses"}


def test_it_runs_as_in_a_pod_and_ends_on_sigterm(container: Container) -> None:
    started = container.wait_started()
    status = {pid: Path(f"/proc/{pid}/status").read_text() for pid in container.pids}
    assert len(status) == 2, "gunicorn's master as PID 1, and one worker"
    for text in status.values():
        assert "\nUid:\t10001\t10001\t10001\t10001\n" in text
        assert "\nCapEff:\t0000000000000000\n" in text and "\nNoNewPrivs:\t1\n" in text
    main = Path(f"/proc/{container.pids[0]}/status").read_text()
    assert "\t1\n" in next(line + "\n" for line in main.splitlines() if line.startswith("NSpid:"))

    refused = container.run("python", "-c", "open('/app/x', 'w')")
    assert "Read-only file system" in refused.stderr
    probe = container.run("python", "-m", "health.probe", "--timeout", "3")
    assert probe.returncode == 0, probe.stdout + probe.stderr
    command = container.run("headwater", "publish", "orders", "tea")
    assert command.returncode == 0, command.stdout + command.stderr

    memory = sum(_pss(pid) for pid in container.pids)
    print(f"/startupz after {started:.2f} s; idle: {memory / 2**20:.0f} MB")
    assert started < 2.0 * 3, "2 s on a machine that does nothing else"
    request = pod_spec(find(plain(), "Deployment", "headwater"))["containers"][0]["resources"]["requests"]
    assert memory + Settings().sse_window_bytes < quantity(request["memory"])

    began = time.monotonic()
    assert container.terminate() == 0, container.log.read_text(errors="replace")[-2000:]
    assert time.monotonic() - began < Settings().graceful_timeout


def _pss(pid: int) -> int:
    """Return its own memory and its share of what it shares with others, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no Pss of {pid}")
