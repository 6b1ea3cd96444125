"""Every rule, on manifests in which it must find something and on those in which it must not."""

from __future__ import annotations

from typing import Any

import pytest

from health.doctor.finding import RULES
from tests.doctor import cases_probes, cases_servers, cases_ways
from tests.doctor.cases import NEGATIVE, POSITIVE
from tests.doctor.manifests import (
    deployment,
    seen,
    service,
)

assert cases_probes and cases_servers and cases_ways  # they fill the two lists


@pytest.mark.parametrize(("rule", "documents", "where", "severity", "stream_path"), POSITIVE)
def test_it_is_found(rule: str, documents: Any, where: str, severity: str, stream_path: str | None) -> None:
    found = seen(documents, stream_path)
    assert any(
        (each.id, each.severity) == (rule, severity) and f"{each.object} {each.field}".endswith(where) for each in found
    ), found


@pytest.mark.parametrize(("rule", "documents", "stream_path"), NEGATIVE)
def test_it_is_not_found(rule: str, documents: Any, stream_path: str | None) -> None:
    assert [each for each in seen(documents, stream_path) if each.id == rule] == []


def test_every_rule_has_cases_of_both_kinds() -> None:
    for cases in (POSITIVE, NEGATIVE):
        assert {str(case.values[0]) for case in cases} == set(RULES)


def test_a_pod_with_nothing_wrong_has_no_finding_at_all() -> None:
    assert seen([deployment(pod={"terminationGracePeriodSeconds": 60}), service()]) == []


def test_every_rule_says_what_it_finds_and_names_its_source() -> None:
    for rule in RULES.values():
        assert rule.about.endswith("."), rule.id
        assert len(rule.source) > 30, f"{rule.id}: no source"
