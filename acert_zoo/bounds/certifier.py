"""What certifies images (`Certifier`), what it returns for a batch, and what decides claims (`Prover`)."""

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


class Prover(Protocol):
    """What decides whether claimed radii hold, without a search: `RigorousNetwork` for a single network. A model that
    is more than one network brings its own: `prover(rounding=)`, in eval mode, for a level of docs/soundness.md."""

    def proves(self, images: Tensor, labels: Tensor, eps: Tensor, /) -> Tensor:
        """[N] bool: whether the model answers `labels` [N] everywhere within `eps`, float64 [N], of the images
        [N, C, H, W] (closed balls, pixel units)."""
        ...


class RoutedProver(Prover, Protocol):
    """The prover of a model whose members answer in turn (`cascades.certificate.CascadeProver`)."""

    def may_answer(self, images: Tensor, answers: Tensor, route: Tensor, /) -> Tensor:
        """[N] bool: whether member `route`, int64 [N], may be the one that says `answers` [N]."""
        ...
