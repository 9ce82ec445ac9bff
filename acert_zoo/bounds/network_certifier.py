"""How a single network is certified: interval bounds first, CROWN-family bounds on request where they give more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from acert_zoo.bounds.certifier import BatchCertificates
from acert_zoo.bounds.radius_search import RadiusSearch
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.agreement import Agreement
from acert_zoo.network.digest import network_sha256
from acert_zoo.network.graph import Network
from acert_zoo.rounding import BoundMethod, RoundingLevel


class NetworkCertifier:
    """Certifies a single network: IBP radii, and on request CROWN-family radii where those are larger.

    With an `agreement` the module that the network was read from is held against it at every image, and at points of
    every certified box. `device` is where the float32 search runs, by default where the network is, and the proofs of
    interval bounds too where it may run them (`placed_proofs.py`); predictions stay where the network is.
    """

    def __init__(
        self,
        network: Network,
        input_shape: Sequence[int] | None,
        method: str,
        rounding: str,
        budget: float | None,
        agreement: Agreement | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.agreement = agreement
        dtype = network.head.weight.dtype
        if dtype != torch.float32:
            raise InvalidInputError(
                f"the network's weights are {dtype}; certificates are about float32 networks: model.float() gives one "
                "(another one, which they are then about)"
            )
        self.network, self.method, self.budget = network, method, budget
        self.search = RadiusSearch(network, rounding, device=device)
        self.ibp_rounding = rounding  # of radii that interval bounds prove
        self.rounding = rounding if method == BoundMethod.IBP else RoundingLevel.FLOAT32  # what auto-LiRPA alone gives
        self.network_sha256 = network_sha256(network)
        self.input_shape, self.num_classes = input_shape, network.num_classes

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None) -> BatchCertificates:
        if self.agreement is not None:
            self.agreement.images(images)
        logits = self.network(images.to(self.network.head.weight.device)).cpu()
        prediction = logits.argmax(1)
        label = prediction if labels is None else labels
        found = self.search(images, label, logits)
        radius, margin = found.radius, found.margin
        method, roundings = [str(BoundMethod.IBP)] * len(label), [str(self.ibp_rounding)] * len(label)
        if self.method != BoundMethod.IBP:
            radius, margin = self._improve(images, label, prediction, radius, margin, method, roundings)
        if self.agreement is not None:
            self.agreement.boxes(images, radius)
        return BatchCertificates(radius, margin, prediction, label, method, roundings)

    def _improve(
        self,
        images: Tensor,
        label: Tensor,
        prediction: Tensor,
        radius: Tensor,
        margin: Tensor,
        method: list[str],
        roundings: list[str],
    ) -> tuple[Tensor, Tensor]:
        from acert_zoo.bounds.crown_radius import certified_radius_lirpa

        correct = (prediction == label).nonzero().squeeze(1)
        if len(correct) == 0:
            return radius, margin
        with torch.enable_grad():
            better = certified_radius_lirpa(
                self.network,
                images[correct],
                label[correct],
                method=self.method,
                budget=self.budget,
                floor=radius[correct],
                rigorous=self.search.proofs is not None,
            )
        radius, margin = radius.clone(), margin.clone()
        for k, i in enumerate(correct.tolist()):
            value = float(better.radius[k])
            if math.isfinite(value) and value > radius[i]:
                radius[i], margin[i] = min(value, 1.0), float(better.margin[k])
                method[i], roundings[i] = better.method[k], better.rounding[k]
        return radius, margin
