"""The publish key's file disappears and returns with another key: no restart, no stream ended, no event lost."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.fleet import Fleet
from tests.chaos.reader import reckon
from tests.chaos.recorder import Recorder
from tests.support.wait import eventually

OLD, NEW = "the-old-key-of-the-publishers", "the-new-key-of-the-publishers"


def test_a_publish_key_that_disappears_and_comes_back_rotated(tmp_path: Path) -> None:
    # As Kubernetes mounts a Secret: a link to a directory, replaced as a whole.
    secret, first = tmp_path / "data", tmp_path / "1"
    first.mkdir()
    (first / "key").write_text(f"{OLD}\n")
    secret.symlink_to(first)
    current = OLD
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(1, SSE_PUBLISH_KEY=None, SSE_PUBLISH_KEY_FILE=str(secret / "key")))
        readers = fleet.readers(stack)
        recorder = stack.enter_context(
            Recorder(fleet.port, headers=lambda: {"Authorization": f"Bearer {current}"}, repeats=(401, 403))
        )
        recorder.progress()

        def status(key: str) -> set[int]:
            headers = {"Authorization": f"Bearer {key}"}
            return {server.request("POST", "/events/other", b"x", headers).status for server in fleet.servers}

        secret.unlink()
        gone = time.monotonic()
        eventually(lambda: time.monotonic() > gone + 1.5 and status(OLD) == {201}, 5, "a missing file locks all out")
        recorder.progress()
        assert status(NEW) == {401}, "a missing file lets others in"
        second = tmp_path / "2"
        second.mkdir()
        (second / "key").write_text(f"{NEW}\n")
        (tmp_path / "link").symlink_to(second)
        (tmp_path / "link").rename(secret)
        back = time.monotonic()
        eventually(lambda: status(NEW) == {201}, 5, "the new key is not read")
        took = time.monotonic() - back
        current = NEW
        recorder.progress()
        assert status(OLD) == {201}, "publishers that do not know the new key yet are locked out before the grace ends"
        recorder.finish()
        assert sum(reader.reconnects for reader in readers) == 0, "a stream ended"
        note = f"the new key is known {took:.1f} s after it is there"
        reckon("publish key's file gone, then rotated", readers, recorder.finish(), note=note)
