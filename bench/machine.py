"""Describes the machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> dict[str, str]:
    """Return processor, cores, memory, kernel, and the limits on the number of streams."""
    facts = {"processor": "unknown", "cores": str(os.cpu_count()), "kernel": platform.release().split("-")[0]}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            facts["processor"] = value.strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts["memory"] = f"{pages / 2**30:.0f} GiB"
    facts["python"] = platform.python_version()
    release = Path("/etc/os-release")
    if release.exists():
        fields = dict(line.split("=", 1) for line in release.read_text().splitlines() if "=" in line)
        facts["system"] = fields.get("PRETTY_NAME", "").strip('"')
    if "hypervisor" in Path("/proc/cpuinfo").read_text():
        facts["processor"] += ", virtual machine"
    return facts
