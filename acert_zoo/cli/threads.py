"""How many threads a command uses by default, and how they wait: a busy machine must not make a run slower.

OpenMP's threads wait for each other at the end of every layer. Where another program has the core of one of them, the
others spin meanwhile, on cores that it needs. So they sleep instead: on one core with a load of 20, `acert-zoo certify
--model mnist_kappa000 --limit 30` took 13.0 s with two threads that spin (OMP_WAIT_POLICY=ACTIVE, --threads 2), 7.5 s
with two that sleep and 7.5 s with one. The number of threads is that of the
cores which the process may use, whatever their load: a broken-off run goes on with the same number, to the same bits.
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
    """$OMP_NUM_THREADS where it is a number; else the cores that this process may use."""
    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(named) if named.isascii() and named.isdecimal() and int(named) > 0 else _allowed()


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
