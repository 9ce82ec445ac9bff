"""How many threads a command uses by default, and how they wait: a busy machine must not make a run slower.

OpenMP's threads wait for each other at the end of every layer. Where another program has the core of one of them, the
others spin meanwhile: a short run with as many threads as a busy machine has cores takes several times longer than with
one. So threads sleep instead of spinning, and only cores that are idle and allowed are counted.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes OpenMP's threads sleep while they wait, unless the user says otherwise; before torch is imported."""
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def default_threads() -> int:
    """$OMP_NUM_THREADS where it is a number; else the allowed cores without those that other programs keep busy."""
    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if named.isascii() and named.isdecimal() and int(named) > 0:
        return int(named)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return idle_cores(os.cpu_count() or 1, _allowed(), load)


def idle_cores(cores: int, allowed: int, load: float) -> int:
    """At least 1: of the machine's `cores`, those that a load of `load` programs leaves idle, but at most `allowed`."""
    return max(1, min(allowed, cores - round(load)))


def _allowed() -> int:
    """Cores that this process may use: its affinity, and the share of time that its container has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return min(cores, quota(CGROUP_LIMIT.read_text()) or cores)
    except OSError:
        return cores


def quota(text: str) -> int | None:
    """Whole cores, at least 1, of a cgroup's "cpu.max": microseconds of time and of the period, or "max"."""
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not int(words[1]):
        return None
    return max(1, int(words[0]) // int(words[1]))
