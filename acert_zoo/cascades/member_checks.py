"""The rigorous checks of one member of a cascade, and the radii p_k, o_k, g_k - e_k and t_K of `certificate.py`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from acert_zoo.bounds.directed_rounding import difference_down
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.proved_margins import PROOF_BATCH_SIZE
from acert_zoo.bounds.radius_search import RadiusSearch
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.bounds.root_finding import find_roots
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.agreement import Agreement
from acert_zoo.network.reading import read
from acert_zoo.rounding import RoundingLevel

OPEN_CONSTANT = 25.0  # c of the check that shows a gate to be open all around
SEARCH_RTOL = 1e-4  # of h_k, which costs far more a step than p_k
SMALLEST_LAST = 1e-4  # a radius of the last member below this (1/39 of 1/255) is not looked for


class MemberChecks:
    """The rigorous checks of one member on one batch of images, with its labels there."""

    def __init__(
        self, module: nn.Module, gate: float | None, rounding: str, input_shape: tuple[int, ...] | None
    ) -> None:
        self.module = module
        self.agreement: Agreement | None = None
        self.gate = None if gate is None else torch.tensor(gate, dtype=torch.float64)
        self.inner: RigorousNetwork | None = None  # P_1; of the last member at the level asked for
        self.outer: RigorousNetwork | None = None  # P_25 with the float32 terms, of gated members
        self.search: RadiusSearch | None = None
        try:
            reading = read(module, input_shape)
            network = reading.network
            own = RoundingLevel.REAL_SOUND if gate is not None else rounding
            self.inner, self.search = RigorousNetwork(network, own), RadiusSearch(network, own)
            self.agreement = reading.agreement
        except (UnsupportedLayerError, UnsoundSettingError, InvalidInputError):
            if gate is not None:
                raise
            self.inner = self.search = None
            return  # the last member may be anything: then it contributes no radius of its own
        if gate is not None:
            try:
                self.outer = RigorousNetwork(network, RoundingLevel.FLOAT32_DEPLOYED, constant=OPEN_CONSTANT)
            except (UnsupportedLayerError, UnsoundSettingError):
                self.outer = None  # then o_k = 0

    def labels(self, images: Tensor) -> Tensor:
        """y_k: the argmax of the member's float32 logits."""
        return self.logits(images).argmax(1)

    def logits(self, images: Tensor) -> Tensor:
        """The member's own logits, held against the network that its bounds are about."""
        return self.module(images) if self.agreement is None else self.agreement.images(images)

    def labels_and_proved(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(y_k, p_k), p_k = 0 where nothing is proved."""
        assert self.search is not None
        logits = self.logits(images)
        labels = logits.argmax(1)
        return labels, self.search(images, labels, logits).radius

    def proved(self, images: Tensor, labels: Tensor, wanted: Tensor, floor: Tensor) -> Tensor:
        """t_K where `wanted`, 0 elsewhere; none is looked for that is below `floor` or SMALLEST_LAST."""
        out = torch.zeros_like(floor)
        if self.search is None:
            return out
        index = wanted.nonzero().flatten()
        probe = floor[index].clamp(min=SMALLEST_LAST)
        index = index[robust_margin(self.search.network, images[index], labels[index], probe.float()) > 0]
        if len(index):
            x = images[index]
            out[index] = self.search(x, labels[index], self.logits(x)).radius
        return out

    def kept_open(self, images: Tensor, labels: Tensor, proved: Tensor) -> Tensor:
        """o_k = max(0, h_k - g_k), 0 where the float32 terms cannot be claimed."""
        assert self.gate is not None
        out = torch.zeros_like(proved)
        if self.outer is None or not len(proved):
            return out
        at_zero = least_margins(self.outer, images, labels, torch.zeros_like(proved))
        index = ((at_zero > 0) & torch.isfinite(at_zero)).nonzero().flatten()

        def evaluate(rows: Tensor, eps: Tensor) -> Tensor:
            return least_margins(self.outer, images[index[rows]], labels[index[rows]], eps)

        first = proved[index] * (1 - 2e-3)  # the float32 terms cost about this much
        roots = find_roots(evaluate, at_zero[index], first, torch.full_like(first, 1.2), SEARCH_RTOL)
        out[index] = difference_down(roots.low, self.gate.expand_as(roots.low)).clamp(min=0.0)
        return out

    def kept_closed(self, images: Tensor, labels: Tensor, proved: Tensor) -> Tensor:
        """max(0, g_k - e_k), e_k a little above p_k; 0 where no finite failure is found there."""
        assert self.gate is not None
        out, left = torch.zeros_like(proved), torch.arange(len(proved))
        for factor in (1 + 3e-6, 1 + 1e-5, 1 + 1e-4, 1.001, 1.01, 1.1):
            if not len(left):
                break
            trial = proved[left] * factor
            margins = least_margins(self.inner, images[left], labels[left], trial)
            failed = (margins <= 0) & torch.isfinite(margins)
            out[left[failed]] = difference_down(self.gate.expand_as(trial), trial)[failed].clamp(min=0.0)
            left = left[~failed]
        return out


def least_margins(network: RigorousNetwork | None, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    """[N] float64: the margin of `labels` that `network` proves within `eps` of each image; -inf without a network."""
    if network is None:
        return torch.full_like(eps, -math.inf)
    parts = zip(
        images.split(PROOF_BATCH_SIZE), labels.split(PROOF_BATCH_SIZE), eps.split(PROOF_BATCH_SIZE), strict=True
    )
    return torch.cat([network.margins(x, y, e) for x, y, e in parts]) if len(eps) else eps
