"""docs/backup.md: its commands do what it says, and an export looks as it shows."""

from __future__ import annotations

import json
from pathlib import Path

from sse.log.archive import Head
from tests.support.server import ROOT, Server
from tests.support.terminal import Terminal, blocks

TEXT = (ROOT / "docs" / "backup.md").read_text()


def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    with Server(SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as server:
        for n in range(3):
            server.publish("orders", str(n))
        url = str(server.env["SSE_LOG"])
        terminal = Terminal(server, tmp_path, SSE_LOG=url)
        # A cluster with one pod, which is this machine.
        (tmp_path / "bin" / "kubectl").write_text('#!/bin/sh\ncase $1 in cp) cp "$2" "${3#*:}";; exec) shift 3; exec "$@";; esac\n')
        (tmp_path / "bin" / "kubectl").chmod(0o755)
        ran = 0
        for block in blocks(TEXT):
            for command in block.splitlines():
                if command.startswith("{"):
                    continue
                said = terminal.type(command.replace("/data/", f"{tmp_path}/data-") + "; echo status $?")
                assert said.endswith("status 0\n"), (command, said)
                ran += 1
        assert ran >= 9


def test_an_export_looks_as_the_page_shows() -> None:
    (lines,) = [block for block in blocks(TEXT) if block.startswith("{")]
    head, *records, closed, end = map(json.loads, lines.splitlines())
    assert list(head) == ["headwater", "format", *Head._fields]
    assert list(end) == ["end", "gone", "lost", "records", "sha256"] and end["records"] == len(records)
    assert closed == {"closed": records[-1]["channel"], "id": records[-1]["id"]}
