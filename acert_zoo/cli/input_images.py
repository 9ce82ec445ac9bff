"""What a command certifies: images with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """Images float32 [N, C, H, W] in [0, 1], labels int64 [N] or None, one id an image, and where they came from.

    `notes` are sentences to end the report with: what was changed or left out.
    """

    images: Tensor
    labels: Tensor | None
    ids: list[str]
    description: str
    dataset: str | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()
