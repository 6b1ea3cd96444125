"""The result file: every single run, so that medians and doubts can be computed again.

A new run of a scenario replaces that scenario's runs only, so a report can be measured piece by piece while the machine
is quiet.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.methods import Case
from bench.peers.base import Peer
from bench.scenarios import Scenario

FILE = "benchmarks.json"
CEILING = "ceiling"
VERSION = 2


def pick(metrics: dict[str, Any], path: str) -> float | None:
    """Return a metric by its dotted name, if this run has it."""
    value: Any = metrics
    for word in _words(path):
        if not isinstance(value, dict) or word not in value:
            return None
        value = value[word]
    return float(value)


def _words(path: str) -> list[str]:
    head, _, rest = path.partition(".")  # "latency_us.p99.9" has two words
    return [head, rest] if rest else [head]


class Results:
    """Runs by scenario, peer and case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine: dict[str, str] = {}
        self.command = ""
        self.omitted: list[str] = []  # left out for lack of time
        self.peers: dict[str, dict[str, str]] = {}
        self.skipped: dict[str, str] = {}
        self.scenarios: dict[str, dict[str, Any]] = {}

    @property
    def path(self) -> Path:
        """Return the result file's path."""
        return self.folder / FILE

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Load the file, if it has this version's form."""
        results = cls(folder)
        if results.path.exists():
            found = json.loads(results.path.read_text())
            if found.get("version") == VERSION:
                results.peers, results.skipped = found["peers"], found["skipped"]
                results.scenarios, results.machine = found["scenarios"], found["machine"]
                results.command, results.omitted = found["command"], found["omitted"]
        return results

    def save(self) -> None:
        """Write the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "version": VERSION,
            "machine": self.machine,
            "command": self.command,
            "omitted": self.omitted,
            "peers": self.peers,
            "skipped": self.skipped,
            "scenarios": self.scenarios,
        }
        text = json.dumps(content, separators=(",", ":"))
        self.path.write_text(text.replace('{"peer":', '\n{"peer":') + "\n")  # one line per run

    def known(self, peer: Peer) -> None:
        """Record a peer's title and version, and what it has stored when it acknowledges."""
        self.peers[peer.name] = {"title": peer.title, "version": peer.version(), "stores": peer.stores}
        self.skipped.pop(peer.title, None)

    def skip(self, peer: Peer, reason: str) -> None:
        """Record a peer that cannot run."""
        self.skipped[peer.title] = reason

    def begin(self, scenario: Scenario) -> None:
        """Forget the scenario's earlier runs."""
        self.scenarios[scenario.name] = {
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "command": self.command,
            "runs": [],
        }

    def add(self, scenario: Scenario, peer: Peer, case: Case, number: int, metrics: dict[str, Any]) -> None:
        """Record one run."""
        run = {"peer": peer.name, "case": case, "round": number, "seconds": scenario.seconds, "metrics": metrics}
        self.scenarios[scenario.name]["runs"].append(run)

    def add_ceiling(self, scenario: Scenario, case: Case, number: int, metrics: dict[str, Any]) -> None:
        """Record one run of the bare sender."""
        joined = {**case, "joined": metrics["joined"]}
        run = {"peer": CEILING, "case": joined, "round": number, "seconds": metrics["seconds"], "metrics": metrics}
        self.scenarios[scenario.name]["runs"].append(run)

    def runs(self, scenario: str, peer: str, case: Case) -> list[dict[str, Any]]:
        """Return the metrics of every run of this case."""
        runs = self.scenarios.get(scenario, {}).get("runs", [])
        return [run["metrics"] for run in runs if run["peer"] == peer and run["case"] == case]

    def median(self, scenario: str, peer: str, case: Case, metric: str) -> float | None:
        """Return the median over the rounds."""
        values = self.values(scenario, peer, case, metric)
        return statistics.median(values) if values else None

    def values(self, scenario: str, peer: str, case: Case, metric: str) -> list[float]:
        """Return the metric of each round that has it."""
        return [v for v in (pick(metrics, metric) for metrics in self.runs(scenario, peer, case)) if v is not None]

    def cases(self, scenario: str) -> list[Case]:
        """Return the cases that ran, in order, without the ceiling's."""
        found: list[Case] = []
        for run in self.scenarios.get(scenario, {}).get("runs", []):
            if run["peer"] != CEILING and run["case"] not in found:
                found.append(run["case"])
        return found

    def measured_peers(self, scenario: str) -> list[str]:
        """Return the peers with runs in this scenario, in order of first appearance."""
        names = [run["peer"] for run in self.scenarios.get(scenario, {}).get("runs", [])]
        return [name for name in dict.fromkeys(names) if name != CEILING]
