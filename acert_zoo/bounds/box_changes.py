"""Margins on boxes a little larger or smaller than a proved one, without another float64 propagation.

Given the intervals [l, u] of every value on B(x, eps) (float64, `real_sound.py`), those on B(x, eps') are
[l - a, u + b] for eps' >= eps and [l + a, u - b] for eps' <= eps, with some *change* a, b >= 0. It is passed on from
layer to layer in float32, rounded up where the box grows and down where it shrinks. Its relative error is near 2e-4,
but it is small itself: for eps' = eps (1 +- 1e-4) a relative 2e-8 of eps is lost.

**Rules.** If a value lies in that interval on B(x, eps'), then so does the next one with
    input    grows: a = max(0, min(x, eps') - eps),      shrinks: a = max(0, min(x, eps) - eps'); b with 1 - x for x
    W h + c  a' = W+ a + W- b,   b' = W+ b + W- a,   W+ and W- >= 0 being the parts of W = W+ - W-
    ReLU     grows: a' = min(a, max(0, l)),  b' = max(0, b + min(u, 0));
             shrinks: a' = max(0, a + min(l, 0)),  b' = min(b, max(0, u))
    margin   of the rows V = W_y - W_t: at least that on B(x, eps), minus V+ a + V- b (grows) or plus it (shrinks).
*Proof.* The interval that the float64 rule gives for [l, u] holds the exact image of [l, u], and that of the other box
exceeds it by a' and b', or falls short of it by so much: the rule's own slack is carried over unchanged. Growing,
relu(l) - relu(l - a) is 0 for l <= 0, else min(a, l), and relu(u + b) - relu(u) is b for u >= 0, else max(0, u + b).
Shrinking, relu(l + a) - relu(l) is a for l >= 0, else max(0, l + a), and relu(u) - relu(u - b) is 0 for u <= 0, else
min(b, u). At the input the lower end moves by the difference of max(0, x - eps) and max(0, x - eps'); the upper one
likewise. QED

**Rounding** (U = 2^-24). P = 2b and Q = 2a are held in float32. *Invariant*: for some change (a*, b*) the value lies
in [l - a*, u + b*] or [l + a*, u - b*] on B(x, eps'), with P = 2b* and Q = 2a* up to a relative 2U and an absolute
2^-124. (Growing, any larger change serves; shrinking, any smaller.)
Of A = fl(P + Q) and B = fl(P - Q), A' = (|W|/2) A and B' = (W/2) B are computed as float32 sums of products in any
order, as `float32_deployed.py` assumes them, of depth L: with S = |W|(a* + b*), e = g32(L + 2) + 5U and F what
underflow costs, they are within e S + F of S and of W (b* - a*), as |b* - a*| <= a* + b*. Then
    growing    A" = fl(A' f + 4F),  f = 1 + 2.1 e + 20U:   A" >= S (1 + e + 17U) + 2F,   so fl(A" + B') >= 2b'
    shrinking  A" = fl(A' f - 4F),  f = 1 - 2.1 e - 20U:   A" <= S (1 - e - 17U) - 2F,   so fl(A" + B') <= 2b'
for e <= 2^-5, and fl(A" - B') bounds 2a' likewise; a negative one may be replaced by 0. In the ReLU, 2l and 2u are
stored in float32 and moved by 2^-21 of themselves, outward or inward. After an affine step P/2 and Q/2 themselves are a
change, which the ReLU needs, as its sums may cancel (no other step may precede it); these sums are off by U of
themselves, which is the invariant again. F = (2n + 2) 2^-125 + 2^-122 max sum|W|/2 covers underflow with flush-to-zero,
also of what is read. The head works in float64 and multiplies |V| A by 1 +- 2^-19 = 1 +- 32U, which covers the 4U of P
and Q and its own roundings; the sum with the margin is rounded down. A" beyond 2^126 is made NaN, which nothing takes
away again: no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds import preconditions
from acert_zoo.bounds.blocked_sums import blocked_linear
from acert_zoo.bounds.directed_rounding import U32, down, gamma, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.margin_rows import MarginRows, by_label
from acert_zoo.bounds.real_sound import per_channel
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import (
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Normalize,
    Permute,
    ReLU,
    Reshape,
    Sigmoid,
    Sign,
    Tanh,
)
from acert_zoo.network.rule_table import RuleTable
from acert_zoo.rounding import RoundingLevel

HEAD = 2.0**-19  # 32U: the 4U of P and Q, and the head's own roundings
STORED = 2.0**-21  # 8U: ends are rounded to float32 when they are stored, and doubled when they are read
FLOOR = 2.0**-120  # above what the head's products lose to underflow
LARGEST = 2.0**126  # float32 sums beyond it may have overflowed
LONGEST = 2.0**-6  # g32(n + 2) up to which the rules' e <= 2^-5 holds
_AT_A_TIME = 72  # images


class Anchor:
    """What is known of a batch of images at one eps each: margins, and the intervals at the ReLUs.

    Attributes:
        images, labels, eps: float32 [N, C, H, W]; int64 [N]; float64 [N].
        margins: float64 [N, K], lower bounds of f_y - f_t on B(x, eps); -inf where there is none, inf for t = y.
        lower, upper: float32, rounded to nearest, of each ReLU's input.
    """

    def __init__(self, images: Tensor, labels: Tensor, eps: Tensor, head: MarginRows) -> None:
        self.images, self.labels, self.eps, self.head = images, labels, eps, head
        self.margins = torch.empty(0, dtype=torch.float64)
        self.lower: dict[int, Tensor] = {}
        self.upper: dict[int, Tensor] = {}

    def see(self, begin: int, index: int, x: Interval) -> None:
        """Called with the input of ReLU `index` for the images from `begin` on."""
        for ends, end in ((self.lower, x.lower), (self.upper, x.upper)):
            if index not in ends:
                ends[index] = torch.empty(len(self.images), *end.shape[1:], dtype=torch.float32)
            ends[index][begin : begin + len(end)].copy_(end)

    def put(self, index: Tensor, other: Anchor) -> None:
        """The images `index` take what `other` knows of them."""
        self.eps[index], self.margins[index] = other.eps, other.margins
        for ends, found in ((self.lower, other.lower), (self.upper, other.upper)):
            for number, end in found.items():
                ends[number][index] = end


class BoxChange:
    """The rules above for one network; `BoxChange.of` says whether they hold for it.

    Attributes:
        loss: about the relative error of a change: what the roundings cost. An estimate, no bound.
    """

    def __init__(self, network: Network) -> None:
        self._rules = [RULES[step](step) for step in network.steps[:-1]]
        self.loss = (1 + HEAD) * math.prod(1 + rule.outward for rule in self._rules) - 1

    @classmethod
    def of(cls, network: Network, rounding: str) -> BoxChange | None:
        """The rules for a float32 network on the CPU; None where they do not hold or are not for.

        That is: other levels than real-sound, graphs that are no chain, other layers, weights that float32 may flush
        to zero, settings of torch under which its float32 products are no plain sums.
        """
        steps, after_affine = network.steps, False
        if rounding != RoundingLevel.REAL_SOUND or any(step.inputs != (index,) for index, step in enumerate(steps)):
            return None
        for index, step in enumerate(steps):
            if step not in RULES or (isinstance(step, Normalize) and index > 0):
                return None
            # a ReLU needs ends that are bounds to the last digit, as only affine steps give them
            if isinstance(step, ReLU) and not after_affine:
                return None
            if isinstance(step, Affine) and (
                # 2^-149 / 2 is 0, which is no subnormal: both are looked at
                bool(preconditions.has_subnormal(step.weight))
                or bool(preconditions.has_subnormal(step.weight / 2))
                or gamma(step.inner_length + 2, U32) > LONGEST
            ):
                return None
            after_affine = isinstance(step, Affine) or (after_affine and not isinstance(step, ReLU))
        return cls(network) if preconditions.deployed_claimable() else None

    @torch.no_grad()
    def margins(self, anchor: Anchor, index: Tensor, eps: Tensor) -> Tensor:
        """Rigorous lower bounds [m, K] of the margins of `anchor`'s images `index` on B(x, `eps`), eps float64 [m].

        NaN or infinite (but for the label) where nothing is known: float32 has overflowed, or a setting of torch has
        been changed for one under which float32 products are no plain sums.
        """
        out = anchor.margins[index]
        if not preconditions.deployed_claimable():
            return torch.full_like(out, torch.nan)
        grows = eps >= anchor.eps[index]
        for chosen, growing in ((grows, True), (~grows, False)):
            rows = chosen.nonzero().squeeze(1)
            for part in rows.chunk(-(-len(rows) // _AT_A_TIME)) if len(rows) else ():
                changed = down(out[part] + self._change(anchor, index[part], eps[part], growing))
                out[part] = torch.where(out[part].isinf(), out[part], changed)  # no bound, or the label's
        return out

    def _change(self, anchor: Anchor, index: Tensor, eps: Tensor, growing: bool) -> Tensor:
        """Lower bounds [m, K] of how much the margins change."""
        upper, lower = _input_change(anchor.images[index].double(), anchor.eps[index], eps, growing)
        for number, rule in enumerate(self._rules):
            upper, lower = rule(upper, lower, _Where(anchor, index, number, growing))
        sign = 1 if growing else -1
        return self._margin_change(anchor.head, upper.double(), lower.double(), anchor.labels[index], sign)

    def _margin_change(self, head: MarginRows, upper: Tensor, lower: Tensor, labels: Tensor, sign: int) -> Tensor:
        out = upper.new_empty(len(upper), len(head.bias))
        for label, chosen in by_label(labels):
            rows, absolute, _, _ = head.rows(label)
            sums, differences = upper[chosen] + lower[chosen], upper[chosen] - lower[chosen]
            twice = (1 + sign * HEAD) * F.linear(sums, absolute) - F.linear(differences, rows)
            out[chosen] = -sign * twice / 4 - FLOOR * (1 + absolute.sum(1))
        return out


class _Where(NamedTuple):
    """Whose change passes through a step, and in which direction."""

    anchor: Anchor
    rows: Tensor  # which of the anchor's images
    number: int  # of the step
    growing: bool


class _Rule:
    """How P and Q pass through one step: copies of its tensors, so that later changes of the network are not seen.

    Attributes:
        outward: |f - 1| of the rules above, 0 where nothing is rounded.
    """

    outward = 0.0

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, upper: Tensor, lower: Tensor, where: _Where) -> tuple[Tensor, Tensor]:
        """(P, Q) of the output."""
        raise NotImplementedError


class _NormalizeRule(_Rule):
    def __init__(self, step: Normalize) -> None:
        super().__init__(step)
        self.std = step.std.double()

    def __call__(self, upper: Tensor, lower: Tensor, where: _Where) -> tuple[Tensor, Tensor]:
        std = per_channel(self.std, upper)
        return upper / std, lower / std


class _AffineRule(_Rule):
    """With halved weights: B' = center(B), A" = (1 +- outward) spread(A) +- flushed."""

    def __init__(self, step: Affine) -> None:
        super().__init__(step)
        weight = step.weight / 2
        absolute, n = weight.abs(), step.inner_length
        depth, self.center, self.spread = n, _plain(step, weight), _plain(step, absolute)
        if isinstance(step, Linear):
            self.center, self.spread, depth = blocked_linear(weight, torch.zeros_like(step.bias))
        self.outward = 2.1 * (gamma(depth + 2, U32) + 5 * U32) + 20 * U32
        self.flushed = 4 * ((2 * n + 2) * 2.0**-125 + 2.0**-122 * float(absolute.flatten(1).double().sum(1).max()))

    def __call__(self, upper: Tensor, lower: Tensor, where: _Where) -> tuple[Tensor, Tensor]:
        if upper.dtype == torch.float64:
            upper, lower = upper.float(), lower.float()
        sign = 1 if where.growing else -1
        sums = self.spread(upper + lower).mul_(1 + sign * self.outward).add_(sign * self.flushed)
        differences = self.center(upper.sub_(lower))
        if not float(sums.max()) <= LARGEST:
            sums = sums.masked_fill(~(sums <= LARGEST), torch.nan)
        upper, lower = sums + differences, sums.sub_(differences)
        return (upper, lower) if where.growing else (upper.relu_(), lower.relu_())


class _ReLURule(_Rule):
    def __call__(self, upper: Tensor, lower: Tensor, where: _Where) -> tuple[Tensor, Tensor]:
        low, high = (ends[where.number][where.rows] for ends in (where.anchor.lower, where.anchor.upper))
        if where.growing:
            upper = upper.add_(high.clamp_(max=0), alpha=2 * (1 - STORED)).relu_()
            return upper, torch.minimum(lower, low.relu_().mul_(2 * (1 + STORED)))
        upper = torch.minimum(upper, high.relu_().mul_(2 * (1 - STORED)))
        return upper, lower.add_(low.clamp_(max=0), alpha=2 * (1 + STORED)).relu_()


class _RearrangingRule(_Rule):
    def __call__(self, upper: Tensor, lower: Tensor, where: _Where) -> tuple[Tensor, Tensor]:
        return self.step(upper), self.step(lower)


def _plain(step: Any, weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: step.map(x, weight)


def _input_change(x: Tensor, begin: Tensor, end: Tensor, growing: bool) -> tuple[Tensor, Tensor]:
    """(2b, 2a) of pixels x, float64 [m, C, H, W], from eps `begin` to eps `end` [m]."""
    begin, end = (eps.view(-1, *(1,) * (x.dim() - 1)) for eps in (begin, end))
    small, large, above = (begin, end, up(1 - x)) if growing else (end, begin, down(1 - x))
    return tuple((torch.minimum(room, large) - small).clamp_(min=0).mul_(2) for room in (above, x))  # type: ignore[return-value]


_NO_CHAIN = "a step of several inputs, which no chain has"
_NOT_DERIVED = "its change is not derived: every eps is proved in float64"
RULES: RuleTable[type[_Rule]] = RuleTable(
    "box change",
    {
        Normalize: _NormalizeRule,
        Linear: _AffineRule,
        Conv: _AffineRule,
        ReLU: _ReLURule,
        **dict.fromkeys((Flatten, Reshape, Permute), _RearrangingRule),
    },
    {
        Add: _NO_CHAIN,
        Concat: _NO_CHAIN,
        **dict.fromkeys((AvgPool, MaxPool, BatchNorm, Sigmoid, Sign, Tanh), _NOT_DERIVED),
    },
)
