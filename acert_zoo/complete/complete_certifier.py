"""Radii by complete verification (`method="complete"`): bisection over eps, a verdict at each.

A radius is the largest eps at which an image was proved robust; it is never less than the interval bound's. Verdicts
"not robust" and "undecided" end the search from above: the first is a fact, the second only says that the time did not
suffice, so that a larger budget may give a larger radius.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from acert_zoo.bounds.certifier import BatchCertificates
from acert_zoo.bounds.network_certifier import NetworkCertifier
from acert_zoo.complete.decider import DEFAULT_BUDGET, Decider, Limits
from acert_zoo.complete.verdict import ROBUST
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.agreement import Agreement
from acert_zoo.network.graph import Network
from acert_zoo.rounding import BoundMethod, RoundingLevel

RTOL = 0.01  # of the radius: where bisection stops
FIRST = 2.0**-10  # eps that is tried first where interval bounds prove nothing
SHARE = 1 / 3  # of the time that is left, for one verdict


class CompleteCertifier:
    """Certifies a single network; see `acert_zoo.bounds.certifier.Certifier`.

    Args:
        model: the module, for attacks. network, input_shape, agreement: as for `NetworkCertifier`.
        budget: seconds an image, all verdicts together (60).

    Raises:
        InvalidInputError: a rounding level other than real-sound.
    """

    def __init__(
        self,
        model: nn.Module,
        network: Network,
        input_shape: Sequence[int] | None,
        rounding: str,
        budget: float | None,
        agreement: Agreement | None = None,
    ) -> None:
        if rounding != RoundingLevel.REAL_SOUND:
            raise InvalidInputError(f"method 'complete' proves at level 'real-sound' only, got {rounding!r}")
        self.first = NetworkCertifier(network, input_shape, BoundMethod.IBP, rounding, None, agreement)
        self.decider = Decider(model, self.first.network, Fraction(0))
        self.budget = DEFAULT_BUDGET if budget is None else budget
        self.rounding, self.network_sha256 = rounding, self.first.network_sha256
        self.input_shape, self.num_classes = input_shape, network.num_classes

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None) -> BatchCertificates:
        found = self.first(images, labels)
        for i in (found.prediction == found.label).nonzero().flatten().tolist():
            radius, margin = self._improve(images[i : i + 1], found.label[i : i + 1], float(found.radius[i]))
            if radius > found.radius[i]:
                found.radius[i], found.margin[i] = radius, margin
                found.method[i] = str(BoundMethod.COMPLETE)
        if self.first.agreement is not None:
            self.first.agreement.boxes(images, found.radius)
        return found

    def _improve(self, image: Tensor, label: Tensor, low: float) -> tuple[float, float]:
        """(largest eps that was proved, margin proved there); (`low`, 0) where none above `low` was."""
        end = time.perf_counter() + self.budget
        high, margin = None, 0.0
        while (high is None or high - low > RTOL * high) and low < 1:
            left = end - time.perf_counter()
            if left <= 0:
                break
            eps = min(1.0, max(FIRST, 2 * low)) if high is None else (low + high) / 2
            limits = Limits(budget=max(1e-3, SHARE * left))
            (verdict,) = self.decider.at(Fraction(eps), limits)(image, label)
            if verdict.status == ROBUST and verdict.bound is not None:
                low, margin = eps, verdict.bound
            else:
                high = eps
            if high is not None and high < FIRST / 64:
                break
        return low, margin
