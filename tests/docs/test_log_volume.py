"""docs/logs.md, on how much there is: the figures are measured."""

from __future__ import annotations

import json
import re
from statistics import fmean

import pytest
import yaml

from tests.support.server import ROOT, Server
from tests.support.sse_client import SSEClient
from tests.support.terminal import section
from tests.support.wait import eventually

TEXT = section((ROOT / "docs" / "logs.md").read_text(), "How much there is, and how to have less")


def access_lines(server: Server) -> list[str]:
    return [line for line in server.log_text().splitlines() if "headwater.access" in line]


@pytest.mark.parametrize(("form", "words"), [("json", r"about (\d+) bytes as JSON"), ("text", r"and (\d+) as text")])
def test_a_line_is_about_as_long_as_the_page_says(form: str, words: str) -> None:
    (said,) = re.findall(words, TEXT)
    with Server(LOG_FORMAT=form) as server:
        for number in range(5):
            server.publish("orders", f"{number}")
            with SSEClient(server.port, "/events/orders") as client:
                client.next_event()
        eventually(lambda: len(access_lines(server)) == 10, 5)
        assert fmean(map(len, access_lines(server))) == pytest.approx(int(said), rel=0.2)


def test_a_batch_writes_one_line_and_what_is_said_to_write_none_does_not() -> None:
    with Server(LOG_FORMAT="json", SSE_HEARTBEAT=0.1) as server:
        batch = b"".join(json.dumps({"channel": "a", "data": str(number)}).encode() + b"\n" for number in range(500))
        with SSEClient(server.port, "/events/a") as client:
            answer = server.request("POST", "/events", batch, {"Content-Type": "application/x-ndjson"})
            assert answer.status == 201
            for _ in range(500):
                client.next_message()
            for path in ("/readyz", "/healthz", "/metrics"):
                server.request("GET", path, port=server.health_port)
            client.next_event()
            assert [json.loads(line)["target"] for line in access_lines(server)] == ["/events"]


def test_warning_leaves_out_the_access_log() -> None:
    with Server(LOG_LEVEL="warning", SSE_DRAIN_DELAY=0, SSE_DRAIN_WINDOW=0) as server:
        server.publish("a", "x")
        with SSEClient(server.port, "/events/a") as client:
            client.next_event()
        server.terminate()
        assert server.wait(30) == 0
        assert access_lines(server) == []


def test_the_arithmetic_is_right() -> None:
    (said,) = re.findall(r"100 requests a second are ([\d.]+) GB a day", TEXT)
    assert float(said) == pytest.approx(100 * 260 * 86_400 / 1e9, abs=0.1)
    (said,) = re.findall(r"three a second, (\d+) MB a day", TEXT)
    assert float(said) == pytest.approx(10_000 / 3600 * 260 * 86_400 / 1e6, rel=0.1)
    minutes = 5 * 10 * 2**20 / (100 * 260) / 60
    assert "half an\nhour" in TEXT and 25 < minutes < 40


def test_no_service_of_the_compose_file_keeps_its_log_for_ever() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {one["logging"]["driver"] for one in services.values()} == {"local"}
