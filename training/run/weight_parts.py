"""Weights in safetensors files of at most 16 MiB, to be carried back: exact, and half the size where bfloat16 suffices.

A tensor whose every number has bfloat16's eight bits, as `deployment.round_as_trained` leaves them, is stored as
bfloat16; any other as it is. A tensor larger than a part is cut along its first axis: `NAME#K` is its piece K.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from acert_zoo._files import read_plain, write_atomically
from acert_zoo.errors import InvalidInputError

PART_BYTES = 16 * 2**20
_HEADER = 64 * 2**10  # room for the header of a part


def write_parts(tensors: Mapping[str, Tensor], folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Writes `weights-K-of-N.safetensors` into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, piece in _pieces(tensors, part_bytes - _HEADER):
        if used + piece.nbytes > part_bytes - _HEADER and parts[-1]:
            parts.append({})
            used = 0
        parts[-1][name] = piece
        used += piece.nbytes
    paths = [folder / f"weights-{k:03d}-of-{len(parts):03d}.safetensors" for k in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        write_atomically(path, safetensors.torch.save(part))
    return paths


def read_parts(folder: Path) -> dict[str, Tensor]:
    """The tensors, bfloat16 widened to the float32 that they stand for.

    Raises:
        InvalidInputError: there are none, or a part or a piece is missing.
    """
    paths = sorted(folder.glob("weights-*-of-*.safetensors"))
    number = int(paths[0].stem.rpartition("-")[2]) if paths else 0
    wanted = [f"weights-{k:03d}-of-{number:03d}.safetensors" for k in range(1, number + 1)]
    if not paths or [path.name for path in paths] != wanted:
        raise InvalidInputError(f"{str(folder)!r} holds {len(paths)} of {number} parts of weights")
    pieces: dict[str, dict[int, Tensor]] = {}
    for path in paths:
        for name, tensor in safetensors.torch.load(read_plain(path, 2 * PART_BYTES)).items():
            base, _, k = name.partition("#")
            pieces.setdefault(base, {})[int(k or 0)] = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    for base, found in pieces.items():
        if sorted(found) != list(range(len(found))):
            raise InvalidInputError(f"{str(folder)!r}: tensor {base!r} lacks a piece")
    return {b: f[0] if len(f) == 1 else torch.cat([f[k] for k in sorted(f)]) for b, f in pieces.items()}


def _pieces(tensors: Mapping[str, Tensor], largest: int) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        if stored.dtype == torch.float32 and torch.equal(stored.bfloat16().float(), stored):
            stored = stored.bfloat16()
        if stored.nbytes <= largest:
            yield name, stored
            continue
        rows = max(1, largest * len(stored) // stored.nbytes)
        for k, piece in enumerate(stored.split(rows)):
            yield f"{name}#{k}", piece.clone()
