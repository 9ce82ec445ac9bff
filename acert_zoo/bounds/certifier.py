"""What certifies images (`Certifier`), and what it returns for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class BatchCertificates:
    """What a certifier found for one batch; fields as in `Certificates`."""

    radius: Tensor
    margin: Tensor
    prediction: Tensor
    label: Tensor
    method: list[str]
    roundings: list[str]
    route: list[Any] | None = None


class Certifier(Protocol):
    """How one kind of model is certified. A model may bring its own: `certifier(method=, rounding=, budget=)`.

    Attributes:
        rounding: the weakest level that a radius may have (a result says the weakest that one has).
        network_sha256: digest of everything the radii depend on.
        input_shape, num_classes: (C, H, W) and K.
    """

    rounding: str
    network_sha256: str
    input_shape: Sequence[int] | None
    num_classes: int

    def __call__(self, images: Tensor, labels: Tensor | None) -> BatchCertificates:
        """Certifies checked images [N, C, H, W], of `labels` [N], or of the predictions where there are none."""
        ...
