"""One target under atheris: ``python -m tests.fuzz.run request 60``, for 60 seconds.

Needs atheris (requirements-fuzz.txt). Ends with libFuzzer's figures and status 0, or names the first input on which the
target fails. Stores inputs that reach new code in the directory named by a third argument.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sse", "gunicorn.http", "h11", "jwt", "tests.fuzz"]):
    from tests.fuzz.targets import TARGETS


def main(name: str, seconds: str, corpus: str | None = None) -> None:
    """Run one target."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="headwater-fuzz-") as scratch:
        kept = Path(corpus or scratch)
        kept.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds):
            (kept / f"seed-{number}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-max_len=2048", "-print_final_stats=1", "-verbosity=0", "-timeout=10"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={tempfile.gettempdir()}/{name}-", str(kept)], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
