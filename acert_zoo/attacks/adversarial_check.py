"""Whether a point is adversarial, decided by our own code apart from whatever attack proposed it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import AcertZooError
from acert_zoo.network.tracing import trace


class AdversarialCheck:
    """Decides whether points are adversarial: by float64 logits for a network, by the program for a cascade.

    The gates of a cascade are certified for the program itself, but its last member's own radius is about real
    arithmetic, so what the last member answers is decided by its float64 logits as well. With `program` what the
    float32 program answers is enough (certificates of level float32-deployed are about it).
    """

    def __init__(self, model: nn.Module, program: bool = False) -> None:
        self.model, self.program = model, program
        self.is_cascade = hasattr(model, "route")
        last: Any = model.members[-1] if self.is_cascade else model  # type: ignore[index,union-attr]
        self.float64_logits = _float64_logits(last)

    @torch.no_grad()
    def predict(self, points: Tensor, labels: Tensor) -> Tensor:
        """A class other than the label where the point is adversarial, the label elsewhere; [N] int64."""
        if self.is_cascade:
            answer = self.model.answer(points)  # type: ignore[operator]
            predicted: Tensor = answer.logits.argmax(1)
            if not self.program:
                doubtful = ((predicted != labels) & (answer.route == len(self.model.members) - 1)).nonzero().flatten()  # type: ignore[arg-type]
                predicted[doubtful] = self._real(points[doubtful], labels[doubtful])
            return predicted
        predicted = self._real(points, labels)
        if self.program:
            predicted = torch.where(predicted == labels, self.model(points).argmax(1), predicted)
        return predicted

    def _real(self, points: Tensor, labels: Tensor) -> Tensor:
        """The label must lose in float64 (a tie is left to it: a success is no matter of the order of rounding)."""
        if not len(points):
            return labels
        logits = self.float64_logits(points.double())
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        return torch.where(logits.amax(1) > own, logits.argmax(1), labels)


def _float64_logits(model: nn.Module) -> Callable[[Tensor], Tensor]:
    try:
        return trace(model).to(torch.float64)
    except AcertZooError:
        return copy.deepcopy(model).double()
