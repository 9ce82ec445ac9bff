"""Rounding-sound margins of a network: `RigorousNetwork` runs the rules of `rigorous_rules.py`, for level `real-sound`
or `float32-deployed`, in float64 over a snapshot of the network. What is claimed: docs/soundness.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from acert_zoo.bounds import preconditions, proof_device
from acert_zoo.bounds.ibp import Interval, smallest_margin
from acert_zoo.bounds.real_sound import input_box
from acert_zoo.bounds.rigorous_rules import Use, level_of
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU, Selection, Sigmoid, Step
from acert_zoo.network.traversal import forward
from acert_zoo.rounding import RoundingLevel

Refine = Callable[[int, list[Interval], Interval], Interval]
Watch = Callable[[int, int, Interval], None]
_CHUNK = 128  # images at a time: memory is bounded
_CACHED = 2**21  # bytes of the largest value of the convolutional part: about what caches hold
_FEWEST = 4  # images, all the same
_CPU = torch.device("cpu")


def refuse_unproved(margin: Tensor, alive: Tensor) -> Tensor:
    """-inf where the margin is NaN or infinite (an overflow may have made it +inf) or a guard has failed."""
    return margin.masked_fill(~(alive & torch.isfinite(margin)), -math.inf)


class RigorousNetwork:
    """Rounding-sound interval propagation: a float64 snapshot of `network` with every constant computed once.

    Args:
        network: float32, on the CPU (`acert_zoo.network.tracing.trace`). Later changes of its weights are not seen.
        rounding: "real-sound" (a statement about the real-valued network with the stored weights) or "float32-deployed"
            (about its float32 program too).
        constant: c >= 1 of the rule P_c; larger constants give slightly wider, nested bounds (cascades use 5 and 25).
        device: where the proofs run; other devices than the CPU are asked first whether they may (`proof_device.py`).
            Arguments and margins are on the CPU all the same.

    Attributes:
        head: the last layer, ready for its rule.

    Raises:
        UnsoundSettingError, UnsupportedLayerError: the level cannot be claimed; see `preconditions.check_network`.
    """

    def __init__(
        self,
        network: Network,
        rounding: str = RoundingLevel.REAL_SOUND,
        *,
        constant: float = 1.0,
        device: torch.device = _CPU,
    ) -> None:
        preconditions.check_network(network, rounding)
        preconditions.check_backend(rounding)
        proof_device.check_device(device)
        if not 1 <= constant <= 1024:
            raise InvalidInputError(f"constant {constant!r} must lie in [1, 1024]")
        self.rounding, self.constant, self.device = rounding, float(constant), device
        self.network = network.map_tensors(lambda t: t.detach().to(device, torch.float64))
        rules = level_of(rounding)
        arithmetic = rules.arithmetic(self.constant)
        self._rules = [rules.rules[step](arithmetic, step) for step in self.network.steps[:-1]]
        self.head = rules.margin_rows(self.network.head, self.constant)
        self._nonnegative: set[int] = set()  # values with lo >= 0
        for index, step in enumerate(self.network.steps):
            selects = isinstance(step, Selection) and self._nonnegative.issuperset(step.inputs)
            if selects or isinstance(step, (ReLU, Sigmoid)):
                self._nonnegative.add(index + 1)
        self._sizes: dict[tuple[int, ...], int] = {}
        self._joint = self._first_joint()

    @torch.no_grad()
    def margins(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """Rigorous lower bounds, float64 [N], of min over t != y of f_y - f_t on B(x, eps); -inf: nothing is proved.

        Args:
            images: float32 [N, C, H, W], the exact pixels, in [0, 1].
            labels: int64 [N], y.
            eps: radius in pixel units, one number or float64 [N]. It is taken as it is: round fractions up beforehand
                (`acert_zoo.exact_numbers.round_up`).

        Raises:
            InvalidInputError: wrong dtype or shape, pixels outside [0, 1], labels out of range, eps negative or NaN.
            UnsoundSettingError: see `preconditions.check_backend`.
        """
        eps = self._check(images, labels, eps)
        sizes = range(0, len(images), _CHUNK)
        parts = [self._margins(images[i : i + _CHUNK], labels[i : i + _CHUNK], eps[i : i + _CHUNK]) for i in sizes]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    @torch.no_grad()
    def class_margins(self, images: Tensor, labels: Tensor, eps: Tensor | float, watch: Watch | None = None) -> Tensor:
        """Rigorous lower bounds, float64 [N, K], of each f_y - f_t on B(x, eps); -inf: none; inf for t = y.

        Arguments and errors as for `margins`. `watch(first, index, x)` sees the intervals x at ReLU `index` of the
        images from `first` on, before they are overwritten.
        """
        lower, alive = self._lower(images, labels, self._check(images, labels, eps), watch)
        return refuse_unproved(lower, alive.unsqueeze(1)).scatter_(1, labels.unsqueeze(1), math.inf)

    def proves(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """[N] bool: whether the label is proved to be the only argmax on B(x, eps). Arguments as for `margins`."""
        return self.margins(images, labels, eps) > 0

    @torch.no_grad()
    def intervals(self, images: Tensor, eps: Tensor | float, refine: Refine | None = None) -> list[Interval]:
        """Bounds of every value of the network but the logits, index 0 being the input box (to check and to plot).

        `refine(index, earlier, box)` may return a tighter box of value `index` than `box`, if it can prove one from
        the boxes of the earlier values (`rigorous_crown.py`); later values then profit from it.
        """
        labels = torch.zeros(len(images), dtype=torch.int64)
        eps = self._check(images, labels, eps)
        return self.boxes(input_box(images.to(self.device), eps.to(self.device)), refine)

    @torch.no_grad()
    def boxes(self, box: Interval, refine: Refine | None = None) -> list[Interval]:
        """As `intervals`, over any input box [N, *input], float64; level real-sound (no guard is looked at)."""
        kept: list[Interval] = []
        with proof_device.plain_sums(self.device):
            self._propagate(box, torch.ones(len(box.lower), dtype=torch.bool, device=self.device), kept, refine)
        return kept

    def _margins(self, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        lower, alive = self._lower(images, labels, eps)
        return refuse_unproved(smallest_margin(lower, labels), alive)

    def _lower(self, images: Tensor, labels: Tensor, eps: Tensor, watch: Watch | None = None) -> tuple[Tensor, Tensor]:
        """(bounds [N, K] of f_y - f_t, alive [N]), on the CPU; the column of the label means nothing."""
        images, labels, eps = (t.to(self.device) for t in (images, labels, eps))
        alive = torch.ones(len(images), dtype=torch.bool, device=self.device)
        with proof_device.plain_sums(self.device):
            lower = self.head.lower(self._hidden(images, eps, alive, watch), labels, alive)
        return lower.cpu(), alive.cpu()

    def _first_joint(self) -> int | None:
        """The input of the first linear layer, if that is not the head and no later step reads an earlier value."""
        for index, step in enumerate(self.network.steps[:-1]):
            if isinstance(step, Linear):
                begin = step.inputs[0]
                later = [i for s in self.network.steps[index:] for i in s.inputs]
                return begin if begin and begin == index and min(later) >= begin else None
        return None

    def _hidden(self, images: Tensor, eps: Tensor, alive: Tensor, watch: Watch | None = None) -> Interval:
        """The box of the head's input: up to the first linear layer in parts that caches hold, then all at once.

        Convolutions move many activations and few weights, linear layers the reverse.
        """
        if self._joint is None or len(images) <= _FEWEST or self.device.type != "cpu":
            return self._propagate(input_box(images, eps), alive, watch=watch)
        size = max(_FEWEST, _CACHED // (8 * self._widest(images)))
        parts = zip(images.split(size), eps.split(size), alive.split(size), strict=True)
        boxes = [
            self._propagate(input_box(x, e), a, end=self._joint, watch=watch, first=i * size)
            for i, (x, e, a) in enumerate(parts)
        ]
        box = boxes[0] if len(boxes) == 1 else Interval(*(torch.cat(ends) for ends in zip(*boxes, strict=True)))
        return self._propagate(box, alive, begin=self._joint, watch=watch)

    def _widest(self, images: Tensor) -> int:
        """How many numbers the largest value of one image has."""
        shape = tuple(images.shape[1:])
        if shape not in self._sizes:
            self._sizes[shape] = max(v.numel() for v in self.network.run(images[:1].double()))
        return self._sizes[shape]

    def _propagate(
        self,
        box: Interval,
        alive: Tensor,
        kept: list[Interval] | None = None,
        refine: Refine | None = None,
        *,
        begin: int = 0,
        end: int | None = None,
        watch: Watch | None = None,
        first: int = 0,
    ) -> Interval:
        """The box of value `end` (default: the head's input) from that of value `begin`.

        `watch(first, index, x)` sees the input x of each ReLU; `first` says which images these are.
        """

        def rule(index: int, step: Step, inputs: list[Interval]) -> Interval:
            if watch is not None and isinstance(step, ReLU):
                watch(first, index, inputs[0])
            if kept is None:
                nonnegative = self._nonnegative.issuperset(step.inputs)
                return self._rules[index](inputs, Use(alive, nonnegative, index in self.network.overwritable))
            out = self._rules[index](inputs, Use(alive))
            return out if refine is None else refine(index + 1, kept, out)

        return forward(self.network, box, rule, begin=begin, end=end, kept=kept)

    def _check(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """`eps` as float64 [N]; raises on anything for which the bounds would not mean what they say."""
        preconditions.check_backend(self.rounding)
        proof_device.check_settings(self.device)
        if images.dtype != torch.float32 or images.dim() < 2 or images.device.type != "cpu":
            raise InvalidInputError(
                f"images must be float32 [N, C, H, W] on the CPU, got {images.dtype} {tuple(images.shape)} on "
                f"{images.device}"
            )
        if images.numel() and not (bool(images.amin() >= 0) and bool(images.amax() <= 1)):  # NaN: neither
            raise InvalidInputError("pixels must lie in [0, 1]")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise InvalidInputError(f"labels must be int64 [{len(images)}], got {labels.dtype} {tuple(labels.shape)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.network.num_classes:
            raise InvalidInputError(f"labels must lie in [0, {self.network.num_classes - 1}]")
        eps = torch.as_tensor(eps, dtype=torch.float64)
        if eps.shape not in ((), (1,), (len(images),)) or not bool((eps >= 0).all()):
            raise InvalidInputError(f"eps must be one number >= 0 or [N] of them, got {eps}")
        return eps.expand(len(images)) if eps.dim() == 0 or len(eps) == 1 else eps
