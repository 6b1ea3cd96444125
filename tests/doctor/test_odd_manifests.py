"""Odd manifests, with fields of a wrong type. The doctor is no validator, so it skips them; it must neither crash nor
write anything but its repairs."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import yaml

from health.doctor.finding import examine
from health.doctor.load import Loaded, take
from health.doctor.model import Model
from health.doctor.repair import repair
from tests.doctor import cases_probes, cases_servers, cases_ways
from tests.doctor.cases import POSITIVE
from tests.doctor.manifests import examined, text_of

assert cases_probes and cases_servers and cases_ways

ODD: list[Any] = [None, "", "x", "-1", 0, -1, 1.5, True, [], {}, ["x"], {"a": "b"}, [[]], [{}], "é\n# x: y", "{{ x }}", "$(A)", "* & !"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        for key in value:
            below += places(value[key], (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            below += places(item, (*path, number))
    return [path, *below] if path else below


def mutated(documents: Any, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    items = copy.deepcopy([documents] if isinstance(documents, dict) else list(documents))
    for _ in range(chance.randint(1, 3)):
        item = chance.choice(items)
        path = chance.choice(places(item))
        if path == ("kind",):
            continue
        here = item
        try:
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = chance.choice(ODD)
        except (KeyError, IndexError, TypeError):
            continue
    return items


def loaded_from(text: str) -> Loaded:
    loaded = Loaded()
    take("odd.yaml", text, loaded)
    return loaded


@pytest.mark.parametrize("seed", range(6))
def test_nothing_crashes_and_repairs_are_stable(seed: int) -> None:
    for number, case in enumerate(POSITIVE[seed::6]):
        documents = case.values[1]
        if isinstance(documents, str):
            continue
        text = text_of(mutated(documents, seed * 1000 + number))
        try:
            found = examined(text)
        except Exception as error:
            error.add_note(text)
            raise
        if not any(each.changes for each in found):
            continue
        fixed = repaired(text)
        assert repaired(fixed) == fixed, text
        list(yaml.safe_load_all(fixed))


def repaired(text: str) -> str:
    done = repair(
        loaded_from(text), lambda loaded: examine(Model(loaded.objects)), lambda texts: loaded_from(texts["odd.yaml"])
    )
    return done.texts["odd.yaml"]
