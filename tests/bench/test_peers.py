"""The servers to compare with: how they are configured, and, where they are built, that every event arrives."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import build, load, peers, plan, tables
from bench.peers import mercure
from bench.peers.centrifugo import Centrifugo


def fake_go(folder: Path, version: str) -> Path:
    folder.mkdir()
    (folder / "go").write_text(f"#!/bin/sh\necho {version}\n")
    (folder / "go").chmod(0o755)
    return folder


def test_the_newest_go_is_used_not_the_first(tmp_path: Path) -> None:
    old, new = fake_go(tmp_path / "old", "go1.9.4"), fake_go(tmp_path / "new", "go1.26")
    broken = fake_go(tmp_path / "broken", "what?")
    found = build.newest_go(map(str, [tmp_path / "missing", broken, old, new, old]))
    assert found == build.GoCompiler(str(new / "go"), "1.26")


def test_without_go_a_peer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(build.Unavailable, match="go is not installed"):
        build.newest_go([str(tmp_path)])


def test_a_build_that_hangs_makes_a_peer_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BUILD_DEADLINE", 0.05)
    with pytest.raises(build.Unavailable, match="the build took more than 0.05 s"):
        build._run(["sleep", "30"], "the build")


def test_another_compiler_builds_the_program_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "server"
    source.mkdir()
    (source / "main.go").write_text("package main")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_run", lambda arguments, *_, **__: Path(arguments[3]).touch())
    built = []
    for version in ("1.26.1", "1.26.2", "1.26.1"):
        monkeypatch.setattr(build, "go", lambda version=version: build.GoCompiler("go", version))
        built.append(build.go_program(source))
    assert built[0] == built[2] != built[1]


@pytest.mark.parametrize("peer", peers.KNOWN.values(), ids=lambda peer: peer.name)
def test_every_peer_says_what_it_has_stored(peer: peers.Peer) -> None:
    assert peer.stores
    assert not peer.is_durable or peer.resumes or peer.creates_channels


def test_mercure_is_built_with_both_transports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERCURE_BIN", raising=False)
    monkeypatch.setattr(build, "go_program", lambda source: Path("/built") / source.name)
    bolt, local = ([*peers.KNOWN[name].commands(80, tmp_path, 9)[0].argv] for name in ("mercure", "mercure-local"))
    assert bolt == [*local, "-bolt", str(tmp_path / "mercure.db")]
    assert local[:3] == ["/built/mercure_app", "-address", "127.0.0.1:80"]


@pytest.mark.parametrize(("name", "transport"), [("mercure", "transport bolt {"), ("mercure-local", "transport local\n")])
def test_mercures_own_binary_gets_a_caddyfile(
    name: str, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERCURE_BIN", shutil.which("true") or "")
    (command,) = peers.KNOWN[name].commands(80, tmp_path, 9)
    assert command.argv[1:] == ["run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    text = (tmp_path / "Caddyfile").read_text()
    assert transport in text and f"publisher_jwt {mercure.KEY}" in text
    assert text.count("{") == text.count("}")


def test_centrifugo_keeps_history_in_both_engines() -> None:
    memory, redis = (Centrifugo(engine).configuration(80, 9, 6379) for engine in ("memory", "redis"))
    assert memory["engine"] == {"type": "memory"}
    assert redis["engine"] == {"type": "redis", "redis": {"address": ["redis://127.0.0.1:6379"]}}
    for configuration in (memory, redis):
        channel = configuration["channel"]["without_namespace"]  # type: ignore[index]
        assert channel["force_recovery"] and channel["history_size"] and channel["history_ttl"]


def test_an_override_that_is_no_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTRIFUGO_BIN", str(tmp_path))
    with pytest.raises(build.Unavailable, match="CENTRIFUGO_BIN"):
        peers.KNOWN["centrifugo"].prepare()


def test_a_server_ends_with_the_benchmark_that_started_it() -> None:
    script = (
        "from bench import peers; import time\n"
        "with peers.KNOWN['flask-gthread'].started(1) as running: print(running.port, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=build.BENCH.parent, stdout=subprocess.PIPE) as benchmark:
        assert benchmark.stdout is not None
        port = int(benchmark.stdout.readline())
        benchmark.kill()
    deadline = time.monotonic() + 10
    with pytest.raises(OSError):
        while time.monotonic() < deadline:
            socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(0.05)


@pytest.mark.parametrize("name", [name for name in plan.MATTER if name not in ("headwater", "nchan")])
def test_every_event_arrives_once_and_in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = peers.KNOWN[name]

    def refuse(arguments: list[str], what: str, **_: object) -> None:
        raise build.Unavailable(f"not built yet ({what}); `python -m bench --peers {name}` builds it")

    build.loadgen()
    monkeypatch.setattr(build, "_run", refuse)
    try:
        peer.prepare()
    except build.Unavailable as reason:
        pytest.skip(str(reason))
    with peer.started(5) as running:
        peer.create_channel(running.port, "c")
        result = load.run([*running.arguments("c"), "--streams=5", "--warmup=0", "--seconds=0.3"], timeout=30)
    assert result["opened"] == 5
    assert result["events"] > 0 and result["events"] % 5 == 0
    assert tables.faults([result]) == []
