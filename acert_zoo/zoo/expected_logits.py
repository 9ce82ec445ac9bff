"""The logits that a checkpoint must give on fixed images: recorded at export, compared after every loading.

The digest proves that the bytes are right; the logits prove that this machine's torch, and our reading of the
bytes, make the same network of them as at export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import WeightsError

IMAGES = 2
TOLERANCE = 1e-4


def reference_images(input_shape: Sequence[int], images: int = IMAGES) -> Tensor:
    """Fixed images, float32 [images, C, H, W]: pixel i (in memory order) is b / 255, b = (2654435761 (i + 1) mod 2^32)
    div 2^24, a multiplicative hash: the same on every platform, without a random generator."""
    channels, height, width = input_shape
    index = torch.arange(1, images * channels * height * width + 1, dtype=torch.int64)
    levels = (index * 2654435761 % 2**32) >> 24
    return levels.to(torch.float32).div(255).view(images, channels, height, width)


@torch.no_grad()
def compute_expected_logits(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """The registry's `expected_logits` of a model in eval mode: {"images": n, "logits": n rows of K numbers}."""
    logits = model(reference_images(input_shape))
    return {"images": IMAGES, "logits": logits.to(torch.float64).tolist()}


@torch.no_grad()
def check_expected_logits(model: nn.Module, input_shape: Sequence[int], expected: Mapping[str, Any], name: str) -> None:
    """Compares a loaded model's logits with the recorded ones.

    The logits may differ by 1e-4 of the largest expected one (other float32 summation orders differ by about 1e-6).

    Raises:
        WeightsError: they differ by more, or `expected` is no such record.
    """
    try:
        wanted = torch.tensor(expected["logits"], dtype=torch.float64)
        rows = expected.get("images", IMAGES)
        if rows != len(wanted) or wanted.dim() != 2 or not 1 <= rows <= 64 or not bool(torch.isfinite(wanted).all()):
            raise ValueError("logits must be finite, one row an image")
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise WeightsError(f"{name}: the recorded logits cannot be read ({error!r})") from None
    logits = model(reference_images(input_shape, rows)).to(torch.float64)
    if logits.shape != wanted.shape:
        raise WeightsError(
            f"{name}: the recorded logits have shape {tuple(wanted.shape)}, the network's {tuple(logits.shape)}"
        )
    difference = float((logits - wanted).abs().max())
    allowed = TOLERANCE * max(float(wanted.abs().max()), 1e-3)
    if not difference <= allowed:
        raise WeightsError(
            f"{name}: the loaded network does not give its recorded logits (largest difference {difference:.3g}, "
            f"allowed {allowed:.3g}); do not use it on this machine"
        )
