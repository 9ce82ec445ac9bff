"""Zonotopes that stay true in spite of their own rounding: cheap, tight boxes of hidden values for few inputs.

A zonotope (Singh et al. 2018, "Fast and Effective Robustness Certification") carries affine forms forward. The claim
about a value v, with c, G >= 0 or < 0, r >= 0 *exact float64 numbers*, is

    (*)  for every x in the box there is e in [-1, 1]^E with |v_i(x) - c_i - sum over j of G_ji e_j| <= r_i for all i,

the same e for all values up to v; later rules only append to it. Against a backward pass for each neuron
(`rigorous_crown.py`) it costs one product a layer and keeps E = inputs + open neurons columns, so it suits many small
boxes at once. Notation and constants as in `rigorous_crown.py`: u, g(k), TINY = 2^-800; k = 4 g(N + 16), where N is the
largest of n (inner length) and E + 2. m >= |c_i| + sum_j |G_ji| + r_i is computed as fl(|c| + s + r), s = fl(sum |G|),
and is at least 1 - g(E + 2) >= 1/2 times the exact one.

**Input** in [lo, hi]: c = fl((lo + hi)/2), G diagonal with up(max(fl(hi - c), fl(c - lo))) >= |x - c|, r = 0.

**Affine** W v + b: c' = fl(W c + b), G' = fl(G W^T). These deviate by at most g(n + 1)(|W||c| + |b|) and, summed over
j, g(n) |W| sum_j |G_j|, up to (E + 1)(2n + 1) 2^-1021 of underflow; the old r adds |W| r. So
    r' = up(fl((1 + k) fl(|W| r) + k fl(|W| m + |b|)) + TINY)
suffices: (1 + k)(1 - g(n))(1 - u)^4 >= 1, k (1 - g(n + 1))(1/2)(1 - u)^4 >= g(n + 1), and up(fl(x + TINY)) >= x + TINY.

**ReLU** at z in [l, h] (any true box). h <= 0: all is 0. l >= 0: nothing changes. Otherwise, for a float64 s in [0, 1],
relu(z) - s z is convex and >= 0, so it lies in [0, mu] with mu = max(-s l, (1 - s) h): relu(z) = s z + t + t e_new for
t >= mu/2 (t is rounded up) and some e_new in [-1, 1]. c' = fl(fl(s c) + t), G' = fl(s G) and one new column t.
Each of these roundings is at most u (1 + u) times s|c| + t, s|c| and s|G|, or an underflow of 2^-1021; so
    r' = up(fl((1 + k) fl(s r) + k fl(s m + t)) + TINY).

**Rows** of a linear function of the value, R v + d, are affine.

**Box**: c -+ up(fl((1 + k) s) + r), rounded outward, intersected with the box that interval propagation gives: both are
true. Where it is not finite (an overflow anywhere makes c, s or r infinite or NaN, and they stay so) the latter counts.

**Shares** say which inputs a column comes from: column i of the input from input i; the column of an open neuron from
the inputs that its form's columns come from, weighed by their size there. They prove nothing: the input with the
largest share of a row's columns is the one to cut (`complete/input_split.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.crown_rules import factor
from acert_zoo.bounds.directed_rounding import down, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import TINY
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear, ReLU, Reshape


@dataclass(frozen=True, eq=False)
class Zonotope:
    """N affine forms of a flattened value, float64.

    Attributes:
        center, radius: c and r, [N, n]. columns: G [N, E, n]. shares: [N, E, I], each column's sum to 1 (or 0).
    """

    center: Tensor
    columns: Tensor
    radius: Tensor
    shares: Tensor

    @classmethod
    def of(cls, box: Interval) -> Zonotope:
        """The form of the identity on boxes [N, *input]."""
        lower, upper = box.lower.flatten(1), box.upper.flatten(1)
        center = (lower + upper) / 2
        half = up(torch.maximum(upper - center, center - lower))
        shares = torch.eye(lower.shape[1], dtype=half.dtype).expand(len(lower), -1, -1)
        return cls(center, torch.diag_embed(half), torch.zeros_like(center), shares)

    def affine(self, step: Linear) -> Zonotope:
        """The form of W v + b."""
        k = self._terms(step.inner_length)
        error = (1 + k) * (self.radius @ step.abs_weight.t()) + k * step.map(
            self._most(), step.abs_weight, step.bias.abs()
        )
        return Zonotope(step(self.center), self.columns @ step.weight.t(), up(error + TINY), self.shares)

    def relu(self, box: Interval) -> Zonotope:
        """The form of relu(v), v in `box` [N, n]; columns are appended for open neurons."""
        low, high = box
        active, dead = low >= 0, high <= 0
        slope = (high / (high - low)).clamp(0, 1).masked_fill(active, 1.0).masked_fill(dead, 0.0)
        excess = torch.maximum(slope * -low, up(1 - slope) * high)
        half = up(up(excess) / 2).masked_fill(active | dead, 0.0)
        k = self._terms(1)
        error = (1 + k) * (slope * self.radius) + k * (slope * self._most() + half)
        columns, shares = self._appended(half, ~(active | dead))
        return Zonotope(
            self.center * slope + half,
            torch.cat([self.columns * slope.unsqueeze(1), columns], dim=1),
            up(error + TINY),
            torch.cat([self.shares, shares], dim=1),
        )

    def box(self) -> Interval:
        """What the forms enclose, [N, n]; meaningless where it is not finite."""
        deviation = up((1 + self._terms(1)) * self._spread() + self.radius)
        return Interval(down(self.center - deviation), up(self.center + deviation))

    def influence(self, place: Tensor) -> Tensor:
        """[N, I]: how much each input contributes to the spread of entry `place` [N] of the value."""
        columns = self.columns.gather(2, place.view(-1, 1, 1).expand(-1, self.columns.shape[1], 1))
        return (columns.abs() * self.shares).sum(1)

    def _spread(self) -> Tensor:
        """s [N, n]."""
        return self.columns.abs().sum(1)

    def _most(self) -> Tensor:
        """m [N, n]."""
        return self.center.abs() + self._spread() + self.radius

    def _terms(self, inner: int) -> float:
        """k of a rule with inner length `inner`."""
        return factor(max(inner, self.columns.shape[1] + 2))

    def _appended(self, half: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
        """([N, E', n]: open neurons' halves, one a column, [N, E', I]: shares), E' the most that are open in a box."""
        place = open_.cumsum(1) - 1
        which, neuron = open_.nonzero(as_tuple=True)
        slot = place[which, neuron]
        count = int(place.max()) + 1 if len(which) else 0
        columns = half.new_zeros(len(half), count, half.shape[1])
        columns[which, slot, neuron] = half[which, neuron]
        weights = self.columns.abs().transpose(1, 2) @ self.shares  # [N, n, I]
        shares = half.new_zeros(len(half), count, self.shares.shape[2])
        shares[which, slot] = (weights / weights.sum(2, keepdim=True).clamp(min=TINY))[which, neuron]
        return columns, shares


def suits(network: Network) -> bool:
    """Whether from the first linear layer on there are only linear layers and ReLUs, all one after the other."""
    steps = network.steps
    first = next(index for index, step in enumerate(steps) if isinstance(step, Linear))
    chain = all(step.inputs == (index,) for index, step in enumerate(steps))
    return chain and all(isinstance(step, (Linear, ReLU, Flatten, Reshape)) for step in steps[first:])


def bytes_per_box(network: Network) -> int:
    """About what the forms of one box take at most, where every neuron is open."""
    layers = [step for step in network.steps if isinstance(step, Linear)]
    columns = layers[0].weight.shape[1] + sum(len(layer.weight) for layer in layers)
    return 8 * 4 * columns * max(max(layer.weight.shape) for layer in layers)


class ZonotopeBoxes:
    """Tightens boxes as `RigorousNetwork.boxes(box, refine)` comes to them; for one call.

    Args:
        network: float64, one that `suits`.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.form: Zonotope | None = None

    def __call__(self, index: int, earlier: list[Interval], box: Interval) -> Interval:
        """The box of value `index`; that of a linear layer's output intersected with what its form encloses."""
        step = self.network.steps[index - 1]
        if isinstance(step, ReLU) and self.form is not None:
            x = earlier[index - 1]
            self.form = self.form.relu(Interval(x.lower.flatten(1), x.upper.flatten(1)))
        if not isinstance(step, Linear):
            return box
        self.form = (self.form or Zonotope.of(earlier[index - 1])).affine(step)
        found, shape = self.form.box(), box.lower.shape
        known = (found.lower.isfinite() & found.upper.isfinite()).view(shape)
        return Interval(
            torch.where(known, torch.maximum(box.lower, found.lower.view(shape)), box.lower),
            torch.where(known, torch.minimum(box.upper, found.upper.view(shape)), box.upper),
        )

    def rows(self, boxes: list[Interval], rows: Tensor, const: Tensor) -> Zonotope:
        """The forms of <rows_m, logits> + const_m, once all `boxes` are known; float64 [M, K], [M], exact."""
        head = self.network.head
        before = self.form or Zonotope.of(boxes[head.inputs[0]])
        return before.affine(head).affine(Linear(weight=rows, bias=const, inputs=(0,)))
