"""Where the serving side's time goes: `python -m bench.profile`, two minutes; writes docs/profiles/.

Three loads, each on a worker with one core: `saturation` (1,000 streams, one publisher that waits for each answer),
`publish` (the publisher alone) and `opening` (10,000 streams, opened as fast as possible). First the load runs
unobserved; /proc gives the CPU time of one event, request or stream, user and kernel apart. Then py-spy samples the
worker, which gives the share of each part of the service. Then perf, if it works, gives functions of the interpreter
and the kernel. Sampling 100 times a second without stopping the process costs a few per cent; both rates are reported.

The first run installs py-spy from bench/requirements.txt into a virtual environment of the benchmarks' own. py-spy must
be allowed to read another process: as root, or with kernel.yama.ptrace_scope=0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import build, flame, folded, load, machine, measure, methods, peers, tables
from bench.methods import Case
from bench.peers.base import PeerFailed, Running

ROOT = build.BENCH.parent
SAMPLES_PER_SECOND = 100
PERF_SAMPLES_PER_SECOND = 499
OBSERVER_STARTS = 1.0  # seconds
MARGIN = 2.0  # seconds by which the load outlasts its observer
HOT_SPOTS = 15
NO_PTRACE = "py-spy may not read the worker: run this as root, or with kernel.yama.ptrace_scope=0"


@dataclass(frozen=True)
class Mode:
    """A load to profile."""

    name: str
    title: str
    case: Case
    per: str  # what the costs are per
    rate: str  # the metric that counts it
    run: Callable[[Running, Case, float, Callable[[], None]], dict[str, Any]]  # the load, observed


def publishing(running: Running, case: Case, seconds: float, observe: Callable[[], None]) -> dict[str, Any]:
    """Run a publisher that waits for each answer, and `observe` in the middle."""
    flags = methods.flags(running, case, seconds + MARGIN, publish="closed", publishers=1)
    with load.Generator(flags) as generator:
        generator.line(methods.PATIENCE)
        time.sleep(running.peer.target.settle + methods.WARM_UP)
        observe()
        return generator.line(seconds + methods.PATIENCE)


def opening(running: Running, case: Case, seconds: float, observe: Callable[[], None]) -> dict[str, Any]:
    """Open streams while `observe` runs; it may run longer, because idle moments are no samples."""
    pids = running.pids()
    observer = threading.Thread(target=observe)
    observer.start()
    time.sleep(OBSERVER_STARTS)
    user, kernel = measure.cpu_split(pids)
    with load.Generator(methods.flags(running, case, seconds, publish="none", warmup=0)) as generator:
        opened = generator.line(methods.PATIENCE)
        took = opened["open_seconds"]
        user, kernel = (after - before for after, before in zip(measure.cpu_split(pids), (user, kernel), strict=True))
        observer.join()
    return {**opened, "server_cpu": (user + kernel) / took, "server_kernel": kernel / took}


MODES = {
    mode.name: mode
    for mode in (
        Mode(
            "saturation",
            "Saturation: 1,000 streams, 100 B",
            {"size": 100, "streams": 1000},
            "delivered event",
            "events_per_second",
            publishing,
        ),
        Mode(
            "publish",
            "One publisher, nobody listens",
            {"size": 100, "streams": 0},
            "publish request",
            "publishes_per_second",
            publishing,
        ),
        Mode("opening", "Opening 10,000 streams", {"streams": 10000}, "stream", "open_rate", opening),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--mode", choices=MODES, help="one of the loads")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the three looks (10)")
    parser.add_argument("--peer", choices=[name for name in peers.KNOWN if name.startswith("headwater")])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "profiles")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    peer = peers.KNOWN[options.peer or "headwater"]
    facts = machine.describe()
    text = [
        "# Profiles\n\nWritten by `python -m bench.profile`; its first lines say how. "
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}; {peer.title}, {peer.version()}; {facts['processor']}, "
        f"{facts['cores']} cores, Linux {facts['kernel']}. Functions and files have that commit's names. "
        "What it means: [benchmarks.md](../benchmarks.md).\n"
    ]
    try:
        for mode in [MODES[options.mode]] if options.mode else MODES.values():
            print(f"{mode.title} …", flush=True)
            with peer.started(mode.case["streams"]) as running:
                text.append(_section(mode, running, options.seconds, options.out))
            print(text[-1], flush=True)
    except (build.Unavailable, PeerFailed, load.LoadFailed) as reason:
        print(f"not profiled: {reason}", file=sys.stderr)
        return 1
    (options.out / "README.md").write_text("\n".join(text))
    print(options.out / "README.md")
    return 0


def _section(mode: Mode, running: Running, seconds: float, out: Path) -> str:
    pid = worker(running)
    plain = mode.run(running, mode.case, seconds, lambda: time.sleep(seconds))
    stacks: list[folded.Stack] = []
    sampled = mode.run(running, mode.case, seconds, lambda: stacks.extend(sample(pid, seconds)))
    (out / f"{mode.name}.svg").write_text(flame.draw(stacks, f"{mode.title} (py-spy, the worker)"))
    symbols: list[Symbol] = []
    if shutil.which("perf"):
        mode.run(running, mode.case, seconds, lambda: symbols.extend(perf(pid, seconds)))
    return render(mode, plain, sampled, stacks, symbols)


def worker(running: Running) -> int:
    """Find gunicorn's worker: the process whose parent is one of ours, too."""
    pids = running.pids()
    children = [pid for pid in pids if _parent(pid) in pids]
    if not children:
        raise PeerFailed("no worker process was found")
    return children[-1]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def sample(pid: int, seconds: float) -> list[folded.Stack]:
    """Sample a process with py-spy, without stopping it."""
    program = build.python_venv("profile", build.BENCH / "requirements.txt").parent / "py-spy"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stacks.txt"
        argv = [str(program), "record", "--pid", str(pid), "--duration", f"{max(1, round(seconds))}"]
        argv += ["--rate", str(SAMPLES_PER_SECOND), "--nonblocking", "--function"]
        argv += ["--format", "raw", "--output", str(path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode != 0 or not path.exists():
            said = done.stderr.strip()
            raise build.Unavailable(NO_PTRACE if "ermission" in said else f"py-spy: {said[-300:]}")
        return folded.parse(path.read_text())


@dataclass(frozen=True)
class Symbol:
    """One line of perf's report."""

    share: float
    where: str  # shared object, or [kernel.kallsyms]
    name: str

    @property
    def in_kernel(self) -> bool:
        """Whether it is the kernel's."""
        return self.where.startswith("[kernel") or self.where.startswith("[guest.kernel")


def perf(pid: int, seconds: float) -> list[Symbol]:
    """Sample a process with perf; empty if that fails. By the clock, because virtual machines seldom have counters."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        argv = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(PERF_SAMPLES_PER_SECOND), "-p", str(pid)]
        argv += ["-o", data, "--", "sleep", f"{seconds:g}"]
        recorded = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
        if recorded.returncode != 0:
            print(f"perf does not work here: {recorded.stderr.strip()[-200:]}", file=sys.stderr)
            return []
        argv = ["perf", "report", "-i", data, "--stdio", "--sort", "dso,symbol", "-t", "\t"]
        environment = {**os.environ, "PERF_PAGER": "cat"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment)
        return perf_symbols(done.stdout)


def perf_symbols(report: str) -> list[Symbol]:
    """Parse `perf report -t TAB --sort dso,symbol`."""
    found = []
    for line in report.splitlines():
        words = [word.strip() for word in line.split("\t")]
        if line.startswith("#") or len(words) < 3 or not words[0].rstrip("%").replace(".", "").isdigit():
            continue
        name = words[2].removeprefix("[.] ").removeprefix("[k] ")
        found.append(Symbol(float(words[0].rstrip("%")) / 100, words[1], name))
    return found


def render(
    mode: Mode, plain: dict[str, Any], sampled: dict[str, Any], stacks: list[folded.Stack], symbols: list[Symbol]
) -> str:
    """Write one load's part of the document."""
    rate = plain[mode.rate]
    each = 1e6 * plain["server_cpu"] / max(rate, 1e-9)
    kernel = 1e6 * plain["server_kernel"] / max(rate, 1e-9)
    observed = sampled[mode.rate] / rate if rate else 0.0
    text = (
        f"\n## {mode.title}\n\n"
        f"Unobserved: {tables.count(rate)} {mode.per}s/s at {tables.percent(plain['server_cpu'])} of a core, so "
        f"{each:.2f} µs of CPU time per {mode.per}: {each - kernel:.2f} µs in user code, {kernel:.2f} µs in the "
        f"kernel. While py-spy took its {sum(stack.count for stack in stacks):,} samples, the rate was "
        f"{tables.percent(observed)} of that.\n\n![flame graph]({mode.name}.svg)\n\n"
    )
    rows = [
        [group, tables.percent(share), f"{share * each:.3f}" if each < 10 else f"{share * each:.0f}"]
        for group, share in folded.shares(stacks).items()
    ]
    text += tables.table(["part of the service", "share", f"µs per {mode.per}"], rows)
    spots = [
        [f"`{frame.name}` {frame.file}", tables.percent(own), tables.percent(inclusive)]
        for frame, own, inclusive in folded.hot_spots(stacks, HOT_SPOTS)
    ]
    text += "\n" + tables.table(["function", "itself", "with what it calls"], spots)
    if symbols:
        share = sum(symbol.share for symbol in symbols if symbol.in_kernel)
        named = [[f"`{symbol.name}` {symbol.where}", tables.percent(symbol.share)] for symbol in symbols[:HOT_SPOTS]]
        text += f"\nBy perf, {tables.percent(share)} of the worker's samples were in the kernel. The most frequent:\n\n"
        text += tables.table(["symbol", "share"], named)
    return text


if __name__ == "__main__":
    raise SystemExit(main())
