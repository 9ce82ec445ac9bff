"""Rounding-sound margins of a network: `RigorousNetwork` runs the rules of `rules.py` (level `real-sound`) or
`deployed.py` (level `float32-deployed`) in float64 over a snapshot of the network. What is claimed: docs/soundness.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from acert_zoo.bounds import preconditions
from acert_zoo.bounds.ibp import Interval, smallest_margin
from acert_zoo.bounds.preconditions import ROUNDING_LEVELS
from acert_zoo.bounds.rules import input_box, rules_for
from acert_zoo.errors import InvalidInputError
from acert_zoo.network import Add, Affine, AvgPool, BatchNorm, Network, Normalize, ReLU

__all__ = ["ROUNDING_LEVELS", "RigorousNetwork"]

Refine = Callable[[int, list[Interval], Interval], Interval]
_CHUNK = 32  # images at a time: more gain nothing, and memory is bounded


def refuse_unproved(margin: Tensor, alive: Tensor) -> Tensor:
    """-inf where the margin is NaN or infinite (an overflow may have made it +inf) or a guard has failed."""
    return margin.masked_fill(~(alive & torch.isfinite(margin)), -math.inf)


class RigorousNetwork:
    """Rounding-sound interval propagation: a float64 snapshot of `network` with every constant computed once.

    Args:
        network: float32, on the CPU (`acert_zoo.network.trace`). Later changes of its weights are not seen.
        level: "real-sound" (a statement about the real-valued network with the stored weights) or "float32-deployed"
            (about its float32 program too).
        constant: c >= 1 of the rule P_c; larger constants give slightly wider, nested bounds (cascades use 5 and 25).

    Raises:
        UnsoundSettingError, UnsupportedLayerError: the level cannot be claimed; see `preconditions.check_network`.
    """

    def __init__(self, network: Network, level: str = "real-sound", *, constant: float = 1.0) -> None:
        preconditions.check_network(network, level)
        preconditions.check_backend(level)
        if not 1 <= constant <= 1024:
            raise InvalidInputError(f"constant {constant!r} must lie in [1, 1024]")
        self.level, self.constant = level, float(constant)
        self.network = network.to(torch.float64)
        self._rules = rules_for(level, self.constant)
        self._prepared = {
            index: self._rules.prepare(step)
            for index, step in enumerate(self.network.steps[:-1])
            if isinstance(step, (Affine, AvgPool, BatchNorm))
        }
        self._head = self._rules.head(self.network.head)
        read = [i for step in self.network.steps for i in step.inputs]
        self._in_place = {  # ReLUs that may overwrite what they read: an affine rule's own tensors, read by nobody else
            index
            for index, step in enumerate(self.network.steps)
            if isinstance(step, ReLU) and step.inputs[0] - 1 in self._prepared and read.count(step.inputs[0]) == 1
        }
        self._last_use = {i: index for index, step in enumerate(self.network.steps) for i in step.inputs}

    @torch.no_grad()
    def margins(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """Rigorous lower bounds, float64 [N], of min over t != y of f_y - f_t on B(x, eps); -inf: nothing is proved.

        Args:
            images: float32 [N, C, H, W], the exact pixels, in [0, 1].
            labels: int64 [N], y.
            eps: radius in pixel units, one number or float64 [N]. It is taken as it is: round fractions up beforehand
                (`exact.round_up`).

        Raises:
            InvalidInputError: wrong dtype or shape, pixels outside [0, 1], labels out of range, eps negative or NaN.
            UnsoundSettingError: see `preconditions.check_backend`.
        """
        preconditions.check_backend(self.level)
        eps = self._check(images, labels, eps)
        sizes = range(0, len(images), _CHUNK)
        parts = [self._margins(images[i : i + _CHUNK], labels[i : i + _CHUNK], eps[i : i + _CHUNK]) for i in sizes]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def proves(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """[N] bool: whether the label is proved to be the only argmax on B(x, eps). Arguments as for `margins`."""
        return self.margins(images, labels, eps) > 0

    @torch.no_grad()
    def intervals(self, images: Tensor, eps: Tensor | float, refine: Refine | None = None) -> list[Interval]:
        """Bounds of every value of the network but the logits, index 0 being the input box (to check and to plot).

        `refine(index, earlier, box)` may return a tighter box of value `index` than `box`, if it can prove one from
        the boxes of the earlier values (`crown_rigorous.py`); later values then profit from it.
        """
        labels = torch.zeros(len(images), dtype=torch.int64)
        box = input_box(images, self._check(images, labels, eps))
        kept: list[Interval] = []
        self._propagate(box, torch.ones(len(images), dtype=torch.bool), kept, refine)
        return kept

    def head_lower(self, hidden: Interval, labels: Tensor, alive: Tensor) -> Tensor:
        """Lower bounds [N, K] of f_y - f_t from a box of the head's input; the column t = y means nothing."""
        return self._head.lower(hidden, labels, alive)

    def _margins(self, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        alive = torch.ones(len(images), dtype=torch.bool)
        hidden = self._propagate(input_box(images, eps), alive)
        margin = smallest_margin(self._head.lower(hidden, labels, alive), labels)
        return refuse_unproved(margin, alive)

    def _propagate(
        self, box: Interval, alive: Tensor, kept: list[Interval] | None = None, refine: Refine | None = None
    ) -> Interval:
        values: list[Interval | None] = [box]
        for index, step in enumerate(self.network.steps[:-1]):
            inputs: list[Interval] = [values[i] for i in step.inputs]  # type: ignore[misc]
            x = inputs[0]
            if isinstance(step, BatchNorm):
                out = self._rules.batchnorm(self._prepared[index], step.mean, x, alive)
            elif index in self._prepared:
                out = self._rules.affine(self._prepared[index], x, alive)
            elif isinstance(step, Normalize):
                out = self._rules.normalize(step, x, alive)
            elif isinstance(step, Add):
                out = self._rules.add(x, inputs[1], alive)
            elif index in self._in_place and kept is None:
                out = Interval(x.lower.relu_(), x.upper.relu_())
            else:  # preconditions.EXACT: monotone and free of rounding
                out = Interval(step(*(v.lower for v in inputs)), step(*(v.upper for v in inputs)))
            values.append(out if refine is None else refine(index + 1, values, out))  # type: ignore[arg-type]
            for i in step.inputs:  # free what no later step reads
                if kept is None and self._last_use[i] == index:
                    values[i] = None
        if kept is not None:
            kept.extend(values)  # type: ignore[arg-type]
        return values[self.network.head.inputs[0]]  # type: ignore[return-value]

    def _check(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """`eps` as float64 [N]; raises on anything for which the bounds would not mean what they say."""
        if images.dtype != torch.float32 or images.dim() < 2 or images.device.type != "cpu":
            raise InvalidInputError(
                f"images must be float32 [N, C, H, W] on the CPU, got {images.dtype} {tuple(images.shape)} on "
                f"{images.device}"
            )
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise InvalidInputError("pixels must lie in [0, 1]")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise InvalidInputError(f"labels must be int64 [{len(images)}], got {labels.dtype} {tuple(labels.shape)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.network.num_classes:
            raise InvalidInputError(f"labels must lie in [0, {self.network.num_classes - 1}]")
        eps = torch.as_tensor(eps, dtype=torch.float64)
        if eps.shape not in ((), (1,), (len(images),)) or not bool((eps >= 0).all()):
            raise InvalidInputError(f"eps must be one number >= 0 or [N] of them, got {eps}")
        return eps.expand(len(images)) if eps.dim() == 0 or len(eps) == 1 else eps
