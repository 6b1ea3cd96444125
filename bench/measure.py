"""Reads the serving side's memory and CPU time from the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Memory(NamedTuple):
    """Bytes. The kernel's own memory counts for the whole machine: both ends of every loopback connection."""

    rss: int
    pss: int
    kernel: int


def _fields(path: Path, names: Iterable[str]) -> dict[str, int]:
    """Read the `Name:  123 kB` lines of a file in /proc, in bytes."""
    wanted = {f"{name}:": name for name in names}
    found = dict.fromkeys(wanted.values(), 0)
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] in wanted:
            found[wanted[words[0]]] += int(words[1]) * 1024
    return found


def kernel_memory() -> int:
    """Read the slab (sockets, descriptors, epoll items) and the pages in TCP's queues."""
    slab = _fields(Path("/proc/meminfo"), ["Slab"])["Slab"]
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return slab + int(words[words.index("mem") + 1]) * PAGE
    return slab


def memory(pids: Iterable[int]) -> Memory:
    """Add up the memory of `pids`. Rss counts a page that two workers share twice, Pss half for each."""
    rss = pss = 0
    for pid in pids:
        try:
            found = _fields(Path(f"/proc/{pid}/smaps_rollup"), ["Rss", "Pss"])
        except OSError:  # it has ended
            continue
        rss += found["Rss"]
        pss += found["Pss"]
    return Memory(rss, pss, kernel_memory())


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time so far, in seconds."""
    return sum(cpu_split(pids))


def cpu_split(pids: Iterable[int]) -> tuple[float, float]:
    """Return user time and system time so far, in seconds."""
    user = kernel = 0
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user, kernel = user + int(words[11]), kernel + int(words[12])
    return user / TICKS, kernel / TICKS


def machine_cpu() -> float:
    """Return the busy seconds of all CPUs so far, including what the hypervisor took."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(words[i]) for i in (0, 1, 2, 5, 6, 7)) / TICKS


def settled(read: Callable[[], int], *, within: float = 0.005, interval: float = 0.3, deadline: float = 6.0) -> int:
    """Read until two values `interval` seconds apart differ by less than a share of `within`."""
    end = time.monotonic() + deadline
    last = read()
    while time.monotonic() < end:
        time.sleep(interval)
        value = read()
        if abs(value - last) <= within * max(value, 1):
            return value
        last = value
    return last
