"""The fuzz targets: some seconds in every run of the tests, ten minutes with atheris by ``make fuzz``."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for all targets together.
SECONDS = float(os.environ.get("SECONDS", "600"))
#: The request target has the most to find: it gets the time of this many others.
SHARES = {name: 3 if name == "request" else 1 for name in TARGETS}
MUTATIONS = 60


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Mutate: flip a bit, or remove a piece, double it, or insert one from elsewhere."""
    data, at = bytearray(data), chance.randrange(len(data) + 1)
    match chance.randrange(4):
        case 0 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            del data[at : at + chance.randrange(1, 8)]
        case 2:
            data[at:at] = data[at : at + chance.randrange(1, 20)] * chance.randrange(1, 5)
        case _:
            data[at:at] = chance.choice([b"\0", b"\r\n", b"\n", b"\xff", b"\xc0\xaf", b"0", b"-1", b",", b":", b'"', b"%00"])
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_holds_for_its_seeds_and_their_mutations(name: str) -> None:
    chance = random.Random(name)
    run, seeds = TARGETS[name]
    for seed in seeds:
        run(seed)
        data = seed
        for step in range(MUTATIONS):
            data = mutated(seed if step % 6 == 0 else data, chance)
            try:
                run(data)
            except Exception as error:
                error.add_note(f"{name} with {data!r}")
                raise


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_no_input_that_fails(name: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        assert "CI" not in os.environ, "atheris is not installed: pip install -r requirements-fuzz.txt"
        pytest.skip("atheris is not installed: pip install -r requirements-fuzz.txt")
    seconds = max(1, round(SECONDS * SHARES[name] / sum(SHARES.values())))
    command = [sys.executable, "-m", "tests.fuzz.run", name, str(seconds)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=seconds + 120)
    assert found.returncode == 0, found.stderr[-6000:]
    tried = re.search(r"number_of_executed_units: (\d+)", found.stderr)
    assert tried and int(tried[1]) > 100, found.stderr[-2000:]
    print(f"{name}: {tried[1]} inputs in {seconds} s")
