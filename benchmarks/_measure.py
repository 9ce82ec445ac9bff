"""What the benchmarks share: ratios measured side by side, data, and one way to report."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import acert_zoo
from acert_zoo.data import datasets
from acert_zoo.errors import DatasetNotFoundError


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(works: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each piece of work, taken in turns after one unmeasured turn: what slows one slows all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repetitions + 1):
        for name, work in works.items():
            spent = seconds(work)
            if turn:
                times[name].append(spent)
    return times


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the turn-by-turn ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def test_images(name: str, n: int) -> tuple[Tensor, Tensor, str]:
    """The first n test images, or the bundled ones (repeated) where the full data set is not on this machine."""
    try:
        arrays, labels = datasets.load_split(name, "test")
        return datasets.to_pixels(arrays[:n].copy()), torch.from_numpy(labels[:n].copy()), f"{name} test"
    except DatasetNotFoundError:
        images, targets = acert_zoo.sample_data(name)
        index = torch.arange(n) % len(images)
        return images[index], targets[index], f"{name} bundled images, repeated"


def report(title: str, rows: Sequence[tuple[str, Any, str]], path: str | None) -> None:
    """Prints (name, value, goal) rows; writes them as JSON to `path` (or to stdout for "-")."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if path != "-":
        print(f"{title} (torch {machine['torch']}, {machine['threads']} threads)")
        width = max(len(name) for name, _, _ in rows)
        for name, value, goal in rows:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            print(f"  {name.ljust(width)}  {shown}" + (f"   (goal: {goal})" if goal else ""))
    document = {"benchmark": title, "machine": machine, "results": {name: value for name, value, _ in rows}}
    if path == "-":
        print(json.dumps(document, indent=1))
    elif path:
        Path(path).write_text(json.dumps(document, indent=1) + "\n")
