"""Linear lower bounds over one input box, for many rows at once: what the search runs on, in float32; no proofs.

CROWN (Zhang et al. 2018, arXiv 1811.00866) with free lower slopes (alpha-CROWN, Xu et al. 2021, arXiv 2011.13824) and
with multipliers of split constraints (beta-CROWN, Wang et al. 2021, arXiv 2103.06624). A row is a linear function of
the logits, or of a hidden value; a backward pass turns it into a linear function of the input, whose minimum over the
box is the bound. All rows share the boxes of the hidden values, so only *open* neurons, whose sign is not known, have a
slope and a multiplier: they are the columns of a `Relaxation`, layer after layer, T in all.

The gradient needs no autograd. The bound is a minimum of functions that are linear in slopes and multipliers; where the
minimum is taken, the derivative by the slope of a neuron is (its coefficient, where positive) times z, and by the
multiplier of a constraint s z >= 0 it is -s z, with z the neuron's value when the minimising corner of the box is
carried forward through the same linear pieces. That forward pass costs what the backward pass does, keeps nothing but
open neurons, and its corner is a candidate for an adversarial input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.crown_rules import covered
from acert_zoo.bounds.ibp import Interval
from acert_zoo.complete.linear_rules import RULES
from acert_zoo.complete.split_tree import Path
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import ReLU, Step
from acert_zoo.network.traversal import backward


@dataclass(frozen=True, eq=False)
class OpenNeurons:
    """The neurons of one ReLU whose sign is open over the box, or fixed.

    Attributes:
        index: int64 [n], their places in the flattened value. columns: where they stand among all T.
        lower, upper: [n], l < 0 < u where open. active: [1, value size], 1 where l >= 0, else 0.
    """

    index: Tensor
    columns: slice
    lower: Tensor
    upper: Tensor
    active: Tensor


@dataclass(eq=False)
class Relaxation:
    """Slopes, multipliers and splits of S rows, [S, T] each; sign is 0 (not split), 1 (z >= 0) or -1 (z <= 0)."""

    alpha: Tensor
    beta: Tensor
    sign: Tensor

    def pick(self, index: Tensor | slice | int | list[int]) -> Relaxation:
        return Relaxation(self.alpha[index], self.beta[index], self.sign[index])

    @classmethod
    def join(cls, parts: Sequence[Relaxation]) -> Relaxation:
        return cls(*(torch.cat([getattr(p, k) for p in parts]) for k in ("alpha", "beta", "sign")))


@dataclass(eq=False)
class Minimum:
    """Where a bound is attained.

    Attributes:
        bounds: [S]. alpha_gradient, beta_gradient: [S, T]. z: [S, T], values of the open neurons there.
        coefficients: [S, T], of the open neurons' ReLUs. corner: coefficients [S, *value] of the first value that
            was concretised; their signs say which corner of its box is meant.
    """

    bounds: Tensor
    z: Tensor
    coefficients: Tensor
    corner: Tensor


class LinearBounds:
    """Linear lower bounds over one input box.

    Args:
        network: float32 (or float64, which is slower; the bounds are computed in its dtype).
        boxes: of every value but the logits, [1, *value] (any float dtype); see `LeafProver.boxes`.
        value: the index of the value that rows are functions of; by default the logits. Boxes before it suffice.
        fixed: neurons with the sign that they have wherever the boxes hold; they are columns, too, for multipliers.

    Attributes:
        columns: T. neurons: int64 [T], the number of each column's neuron, as in `split_tree.py`.
        prefix: `fixed` with columns in place of neurons, of those before `value`.
    """

    def __init__(self, network: Network, boxes: Sequence[Interval], value: int | None = None, fixed: Path = ()) -> None:
        self.network = network
        self.value = len(network.steps) if value is None else value
        self.dtype = network.head.weight.dtype
        self.boxes = [Interval(b.lower.to(self.dtype), b.upper.to(self.dtype)) for b in boxes]
        self.center = [((b.lower + b.upper) / 2).flatten() for b in self.boxes]
        self.radius = [((b.upper - b.lower) / 2).flatten() for b in self.boxes]
        self.layers: dict[int, OpenNeurons] = {}
        count = first = 0
        numbers = [torch.empty(0, dtype=torch.int64)]
        for index, step in enumerate(network.steps[: self.value]):
            if isinstance(step, ReLU):
                box = self.boxes[step.inputs[0]]
                own = [neuron - first for neuron, _ in fixed if first <= neuron < first + box.lower.numel()]
                self.layers[index] = layer = _open_neurons(box, count, own)
                count = layer.columns.stop
                numbers.append(layer.index + first)
                first += layer.active.numel()
        self.columns = count
        self.neurons = torch.cat(numbers)
        columns = {neuron: column for column, neuron in enumerate(self.neurons.tolist())}
        self.prefix: Path = tuple((columns[neuron], sign) for neuron, sign in fixed if neuron in columns)
        join = [(layer.lower, layer.upper) for layer in self.layers.values()] or [(self.center[0][:0],) * 2]
        self.lower, self.upper = (torch.cat(ends) for ends in zip(*join, strict=True))
        self.chord = (self.upper / (self.upper - self.lower)).nan_to_num()  # a fixed neuron may have the box [0, 0]
        self.intercept = -self.lower * self.chord

    def start(self, rows: int) -> Relaxation:
        """Slopes 1 where u > -l, else 0; nothing split but what is fixed."""
        alpha = (self.upper > -self.lower).to(self.dtype).expand(rows, -1).clone()
        sign = torch.zeros_like(alpha)
        for column, s in self.prefix:
            sign[:, column] = s
        return Relaxation(alpha, torch.zeros_like(alpha), sign)

    def carried(self, old: Relaxation, neurons: Tensor) -> Relaxation:
        """A start with the slopes and multipliers of `old`, whose columns are `neurons`, where both have them."""
        state = self.start(len(old.alpha))
        place = torch.searchsorted(neurons, self.neurons).clamp(max=max(0, len(neurons) - 1))
        own = (neurons[place] == self.neurons).nonzero().squeeze(1) if len(neurons) else place[:0]
        state.alpha[:, own], state.beta[:, own] = old.alpha[:, place[own]], old.beta[:, place[own]]
        return state

    def bytes_per_row(self) -> int:
        """About what one row takes while it is being optimised."""
        return 4 * (4 * max(c.numel() for c in self.center) + 20 * self.columns)

    def minimum(self, rows: Tensor, const: Tensor, state: Relaxation, *, gradient: bool = True) -> Minimum:
        """Bounds of <rows_s, value> + const_s, rows [S, K] over the logits, or [S, *value]."""
        return _Pass(self, state)(rows, const, gradient)


def _open_neurons(box: Interval, first: int, fixed: Sequence[int]) -> OpenNeurons:
    lower, upper = box.lower.flatten(), box.upper.flatten()
    open_ = (lower < 0) & (upper > 0)
    open_[list(fixed)] = True
    index = open_.nonzero().squeeze(1)
    return OpenNeurons(
        index, slice(first, first + len(index)), lower[index], upper[index], (lower >= 0).to(lower.dtype).unsqueeze(0)
    )


class _Pass:
    """One backward pass and, for the gradient, the forward pass that belongs to it."""

    def __init__(self, bounds: LinearBounds, state: Relaxation) -> None:
        self.bounds, self.state = bounds, state
        free = (state.sign == 0).to(bounds.dtype)
        self.upper = bounds.chord * free + (state.sign > 0)
        self.intercept = bounds.intercept * free
        self.alpha = torch.minimum(
            torch.maximum(state.alpha, (state.sign > 0).to(bounds.dtype)), (state.sign >= 0).to(bounds.dtype)
        )
        self.split = bool((state.sign != 0).any())

    def __call__(self, rows: Tensor, const: Tensor, gradient: bool) -> Minimum:
        self.coefficients = rows.new_zeros(len(rows), self.bounds.columns) if gradient else rows.new_zeros(0)
        self.ends: dict[int, Tensor] = {}
        boxes, visited = self.bounds.boxes, []
        bounds = const

        def rule(number: int, step: Step, a: Tensor) -> list[Tensor] | None:
            nonlocal bounds
            if not covered(step):
                bounds = bounds + self._concretise(number + 1, a)
                return None
            visited.append(number + 1)
            if isinstance(step, ReLU):
                a, gain = self._relu(number, a, gradient)
                bounds = bounds + gain
                return [a]
            parts, constant = RULES[step](step, a, [boxes[i].lower.shape for i in step.inputs])
            bounds = bounds if constant is None else bounds + constant
            return parts

        a = backward(self.bounds.network, self.bounds.value, rows, rule, lambda _, one, other: one + other)
        if a is not None:
            bounds = bounds + self._concretise(0, a)
        z = self._forward(visited[::-1]) if gradient else rows.new_zeros(0)
        return Minimum(bounds, z, self.coefficients, self.ends[min(self.ends)])

    def _concretise(self, index: int, a: Tensor) -> Tensor:
        """The minimum of <a, value> over the box of value `index`, where the pass ends."""
        self.ends[index] = a
        flat = a.flatten(1)
        return flat @ self.bounds.center[index] - flat.abs() @ self.bounds.radius[index]

    def _relu(self, index: int, a: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
        layer, flat = self.bounds.layers[index], a.flatten(1)
        own = flat.index_select(1, layer.index)
        columns = layer.columns
        positive = own.clamp(min=0)
        negative = own - positive
        new = (positive * self.alpha[:, columns]).addcmul_(negative, self.upper[:, columns])
        gain = (negative * self.intercept[:, columns]).sum(1)
        if self.split:
            new -= self.state.beta[:, columns] * self.state.sign[:, columns]
        if gradient:
            self.coefficients[:, columns] = own
        out = flat * layer.active
        out.index_copy_(1, layer.index, new)
        return out.view(a.shape), gain

    def _forward(self, visited: list[int]) -> Tensor:
        """z [S, T]: the minimising corners carried forward through the linear pieces."""
        values: dict[int, Tensor] = {}
        z = torch.zeros_like(self.coefficients)
        positive = (self.coefficients > 0).to(self.bounds.dtype)
        slope = torch.lerp(self.upper, self.alpha, positive)
        shift = self.intercept * (1 - positive)
        for index, a in self.ends.items():
            shape = (len(a), *self.bounds.boxes[index].lower.shape[1:])
            flat = torch.addcmul(self.bounds.center[index], a.flatten(1).sign(), self.bounds.radius[index], value=-1)
            values[index] = flat.view(shape)
        for index in visited:
            step = self.bounds.network.steps[index - 1]
            inputs = [values[i] for i in step.inputs]
            if not isinstance(step, ReLU):
                if index < self.bounds.value:  # what the rows are about is not needed itself
                    values[index] = step(*inputs)
                continue
            layer, flat = self.bounds.layers[index - 1], inputs[0].flatten(1)
            own = flat.index_select(1, layer.index)
            z[:, layer.columns] = own
            out = flat * layer.active
            out.index_copy_(1, layer.index, own * slope[:, layer.columns] + shift[:, layer.columns])
            values[index] = out.view(inputs[0].shape)
        return z
