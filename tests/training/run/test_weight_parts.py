"""Weights in parts: exact, of bounded size, and refused where one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from acert_zoo.errors import InvalidInputError
from training.run.weight_parts import read_parts, write_parts

PART = 80_000  # bytes, 64 KiB of them for a header


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(40, 500, generator=generator).bfloat16().float()  # 40,000 bytes in bfloat16: three pieces
    return {"a": torch.randn(30, generator=generator), "large": large, "n": torch.tensor(3), "bias": torch.ones(4)}


def test_parts_are_exact_and_small(tmp_path: Path) -> None:
    given = tensors()
    paths = write_parts(given, tmp_path, PART)
    assert len(paths) > 2
    assert all(path.stat().st_size <= PART for path in paths)
    found = read_parts(tmp_path)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in given.items())
    stored = {name: t.dtype for path in paths for name, t in safetensors.torch.load_file(path).items()}
    assert stored["large#0"] == stored["bias"] == torch.bfloat16
    assert stored["a"] == torch.float32  # bfloat16 does not hold it


def test_a_missing_part_is_refused(tmp_path: Path) -> None:
    paths = write_parts(tensors(), tmp_path, PART)
    paths[1].unlink()
    with pytest.raises(InvalidInputError, match=f"holds {len(paths) - 1} of {len(paths)} parts"):
        read_parts(tmp_path)
    with pytest.raises(InvalidInputError, match="holds 0 of 0 parts"):
        read_parts(tmp_path / "nothing")
