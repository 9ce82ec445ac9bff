"""Adversarial images, checked without trusting float32: distance exactly, the answer in outward-rounded float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from acert_zoo.attacks.exact_box import attack_box, distance
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Normalize


@torch.no_grad()
def refutes(rigorous: RigorousNetwork, image: Tensor, label: int, eps: float, point: Tensor) -> int | None:
    """A class t with f_t > f_label at `point`, by real arithmetic; None where there is no proof of one.

    The margin of t over the label is bounded over a box of radius 2^-800 about the point, by the rules of
    docs/soundness.md.

    Args:
        image, point: float32 [1, C, H, W]. eps: radius in pixel units, a float64 that does not exceed what was asked.
    """
    inside = bool(((point >= 0) & (point <= 1)).all()) and float(distance(point, image)) <= eps
    if not inside:
        return None
    likely = rigorous.network(point.double())[0].argsort(descending=True).tolist()
    for other in likely:
        if other == label:
            return None  # those that follow are below the label already
        margin = float(rigorous.class_margins(point, torch.tensor([other]), 0.0)[0, label])
        if 0 < margin < math.inf:
            return int(other)
    return None


class CornerSearch:
    """Tries the corners of the box at which linear bounds are attained; remembers the first adversarial one.

    Args:
        image: float32 [1, C, H, W]; eps: as in `refutes`.
    """

    def __init__(self, network: Network, rigorous: RigorousNetwork, image: Tensor, label: int, eps: float) -> None:
        self.network, self.rigorous = network, rigorous
        self.image, self.label, self.eps = image, label, eps
        self.box = attack_box(image, torch.tensor([eps], dtype=torch.float64))
        self.found: tuple[Tensor, int] | None = None
        first = network.steps[0]
        self.usable = not isinstance(first, Normalize) or sum(0 in s.inputs for s in network.steps) == 1

    @torch.no_grad()
    def __call__(self, coefficients: Tensor) -> bool:
        """Whether a corner is adversarial; coefficients [S, *image] of the input, or of its normalisation (std > 0)."""
        if not self.usable or coefficients.shape[1:] != self.image.shape[1:]:
            return False
        points = torch.where(coefficients > 0, self.box.lower, self.box.upper)
        wrong = (self.network(points).argmax(1) != self.label).nonzero().squeeze(1)
        for i in wrong.tolist()[:4]:
            point = points[i : i + 1]
            answer = refutes(self.rigorous, self.image, self.label, self.eps, point)
            if answer is not None:
                self.found = point, answer
                return True
        return False
