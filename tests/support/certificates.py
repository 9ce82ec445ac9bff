"""Certificates written down by hand, and certificate files edited as a forger would."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch

from acert_zoo.certificates.lines import Header, Line
from acert_zoo.certificates.results import Certificates


def header(**changes: object) -> Header:
    values = {
        "package_version": "0.1.0",
        "model": "small",
        "model_version": 1,
        "weights_sha256": "a" * 64,
        "network_sha256": "b" * 64,
        "method": "ibp",
        "rounding": "real-sound",
        "certifies": "label",
        "dataset": None,
        "split": None,
        "n": 0,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Header(**(values | changes))  # type: ignore[arg-type]


def certificates(radii: list[float], correct: list[bool] | None = None) -> Certificates:
    n = len(radii)
    correct = [r > 0 for r in radii] if correct is None else correct
    return Certificates(
        header=header(n=n),
        radius=torch.tensor(radii, dtype=torch.float64),
        margin=torch.tensor([0.5 if r > 0 else math.nan for r in radii], dtype=torch.float64),
        prediction=torch.zeros(n, dtype=torch.int64),
        label=torch.tensor([0 if c else 1 for c in correct], dtype=torch.int64),
        method=["ibp"] * n,
        roundings=["real-sound"] * n,
        seconds=torch.full((n,), 0.25, dtype=torch.float64),
        ids=[f"image {i}" for i in range(n)],
        pixel_sha256=["c" * 64] * n,
    )


def line(**changes: object) -> Line:
    values = vars(certificates([0.5]).lines()[0])
    return Line(**(values | changes))


def edit(path: Path, row: int, *, seal: bool = True, **changes: Any) -> None:
    """Changes keys of one line; `seal`: with a checksum that fits, as a forger would."""
    rows = path.read_text().splitlines()
    values = json.loads(rows[row]) | changes
    crc = values.pop("crc32")
    text = json.dumps(values)[:-1]
    rows[row] = f'{text}, "crc32": "{zlib.crc32(text.encode()) if seal else int(crc, 16):08x}"}}'
    path.write_text("\n".join(rows) + "\n")


def values_of(path: Path, row: int) -> dict[str, Any]:
    return json.loads(path.read_text().splitlines()[row])
