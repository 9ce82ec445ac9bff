"""Margins on a box a little larger than a proved one, without another float64 propagation.

Given the intervals [l, u] of every value on B(x, eps) (float64, `rules.py`), those on B(x, eps') with eps' >= eps are
[l - a, u + b] for some *growth* (a, b) >= 0. It is passed on from layer to layer in float32 and rounded outward. Its
relative error is near 2e-4, but it is small itself: for eps' = eps (1 + 1e-4) a relative 2e-8 of eps is lost.

**Rules.** If a value lies in [l - a, u + b] on B(x, eps'), then so does the next one with
    input    a = max(0, min(x, eps') - eps),   b = max(0, min(1 - x, eps') - eps)
    W h + c  a' = W+ a + W- b,   b' = W+ b + W- a,   W+ and W- >= 0 being the parts of W = W+ - W-
    ReLU     a' = min(a, max(0, l)),   b' = max(0, b + min(u, 0))
    margin   of the rows V = W_y - W_t: at least that on B(x, eps) minus V+ a + V- b.
*Proof.* The interval that the float64 rule gives for [l, u] holds the exact image of [l, u], and that of the larger box
exceeds it by a' below and b' above: the rule's own slack is carried over unchanged. relu(l) - relu(l - a) is 0 for
l <= 0, else min(a, l); relu(u + b) - relu(u) is b for u >= 0, else max(0, u + b). At the input x - eps is replaced by
x - eps', both cut at 0, so the lower end moves by max(x - eps, 0) - max(x - eps', 0); the upper one likewise. QED

**Rounding** (U = 2^-24). The growth is held as A = a + b and B = b - a: then A' = |W| A and B' = W B, in float32 sums
of products in any order as `deployed.py` assumes them, of depth L: errors up to g32(L + 2) |W| A each, as |B| <= A.
*Invariant*: there is a growth with sums (A*, B*), A >= (1 - 4U) A* and |B - B*| <= 4U A*. With
e = g32(L + 2) + 5U, S = |W| A*, and F what underflow costs, the computed |W| A is at least (1 - e) S - F, and W B is
within e S + F of W B*. It is multiplied by f = 1 + 2.1 e + 20U and raised by 4F; for e <= 2^-5,
(1 - e) f (1 - 2U) >= 1 + e + 17U. So A' >= S (1 + e + 17U) + 2F, and fl(A' + B') >= S + W B* = 2b': what ReLU starts
from, P = fl(A + B) and Q = fl(A - B), are upper bounds of 2b and 2a, and Q >= 0 for |B'| <= (1 + e) S + F <= A'.
P' = fl(P + 2 min(u, 0)) is off by U of itself, Q' = min(Q, 2 max(0, l)) not at all, P' - Q' and P' + Q' by U once more:
the invariant again. These sums are twice A and B, so the next W is halved, exactly. 2l and 2u are stored in float32,
rounded up by a factor 1 + 2^-21 or 1 - 2^-21.
F = (2n + 2) 2^-125 + 2^-122 max sum|W| covers underflow with flush-to-zero, also of what is read. The head works in
float64 and multiplies |V| A by 1 + 2^-19, which covers 8U of it and its own roundings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds import preconditions
from acert_zoo.bounds.blocked import blocked_linear
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.preconditions import DEPLOYED, REAL_SOUND, U32
from acert_zoo.bounds.rules import Head, by_label, gamma, per_channel, up
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network import Affine, Flatten, Linear, Network, Normalize, Permute, ReLU, Reshape, Step

HEAD = 2.0**-19
_REARRANGED = (Flatten, Reshape, Permute)


class Growth:
    """The rules above for one network; `Growth.of` says whether they hold for it.

    Attributes:
        loss: relative error of a growth, at most: what the roundings add to it.
    """

    def __init__(self, network: Network) -> None:
        self._steps: list[Step | _Map] = []
        self.loss = 1.0
        doubled = True  # the input is: see `change`
        for step in network.steps[:-1]:
            if isinstance(step, Affine):
                mapped = _affine(step, 0.5 if doubled else 1.0)
                self.loss *= mapped.outward
                self._steps.append(mapped)
            else:
                self._steps.append(step)
            if isinstance(step, (Affine, ReLU)):
                doubled = isinstance(step, ReLU)
        self._head_factor = 0.25 if doubled else 0.5
        self.loss = self.loss * (1 + HEAD) - 1

    @classmethod
    def of(cls, network: Network, level: str) -> Growth | None:
        """The rules for a float32 network on the CPU; None where they do not hold or are not for.

        That is: other levels than real-sound, graphs that are no chain, other layers, weights that float32 may flush
        to zero, settings of torch under which its float32 products are no plain sums.
        """
        steps, affine = network.steps, False
        if level != REAL_SOUND or any(step.inputs != (index,) for index, step in enumerate(steps)):
            return None
        for index, step in enumerate(steps):
            suits = isinstance(step, (Affine, *_REARRANGED)) or (isinstance(step, Normalize) and index == 0)
            if not (suits or (isinstance(step, ReLU) and affine)):
                return None
            if isinstance(step, Affine) and (
                bool(preconditions.has_subnormal(step.weight / 2)) or gamma(step.inner_length + 2, U32) > 2.0**-6
            ):
                return None
            affine = isinstance(step, Affine) or (affine and not isinstance(step, ReLU))
        return cls(network) if _usable() else None

    @torch.no_grad()
    def change(self, anchor: Anchor, index: Tensor, eps: Tensor) -> Tensor:
        """Lower bounds [m, K] of how the margins of `anchor`'s images `index` change as its eps grows to `eps` [m].

        NaN or infinite where float32 overflows, and NaN if a setting of torch has been changed for one under which
        float32 products are no plain sums: nothing is known there.
        """
        if not _usable():
            return torch.full_like(anchor.margins[index], torch.nan)
        images, begin = anchor.images[index].double(), _like(anchor.eps[index], anchor.images)
        end = _like(eps, images)
        below = (torch.minimum(images, end) - begin).clamp_(min=0)
        above = (torch.minimum(up(1 - images), end) - begin).clamp_(min=0)
        sums, differences = 2 * (above + below), 2 * (above - below)
        for number, step in enumerate(self._steps):
            if isinstance(step, Normalize):
                std = per_channel(step.std.double(), images)
                sums, differences = sums / std, differences / std
            elif isinstance(step, _Map):
                if sums.dtype == torch.float64:
                    sums, differences = (sums * (1 + 2.0**-20)).float(), differences.float()
                sums = step.spread(sums).mul_(step.outward).add_(step.flushed)
                differences = step.center(differences)
            elif isinstance(step, ReLU):
                wall = anchor.walls[number][index]
                upper, lower = sums + differences, sums.sub_(differences)
                upper.add_(wall.clamp(max=0)).relu_()
                torch.minimum(lower, wall.relu_(), out=lower)
                torch.add(upper, lower, out=differences)
                sums, differences = differences, torch.sub(upper, lower, out=lower)
            else:
                sums, differences = step(sums), step(differences)
        return self._margins(anchor.head, sums.double(), differences.double(), anchor.labels[index])

    def _margins(self, head: Head, sums: Tensor, differences: Tensor, labels: Tensor) -> Tensor:
        out = sums.new_empty(len(sums), len(head.bias))
        for label, chosen in by_label(labels):
            rows, absolute, _, _ = head.rows(label)
            lost = F.linear(sums[chosen], absolute * (1 + HEAD)) - F.linear(differences[chosen], rows)
            out[chosen] = -self._head_factor * lost - 2.0**-120 * (1 + absolute.sum(1))
        return out


class Anchor:
    """What is known of a batch of images at one eps each: margins, and what the growth rules need of the intervals.

    Attributes:
        images, labels, eps: float32 [N, C, H, W]; int64 [N]; float64 [N].
        margins: float64 [N, K], lower bounds of f_y - f_t on B(x, eps); -inf where there is none, inf for t = y.
        walls: of each ReLU's input: 2l where l > 0, else 2 min(u, 0), in float32, rounded up.
    """

    def __init__(self, images: Tensor, labels: Tensor, eps: Tensor, head: Head) -> None:
        self.images, self.labels, self.eps, self.head = images, labels, eps, head
        self.margins = torch.empty(0, dtype=torch.float64)
        self.walls: dict[int, Tensor] = {}

    def put(self, index: Tensor, other: Anchor) -> None:
        """The images `index` take what `other` knows of them."""
        self.eps[index], self.margins[index] = other.eps, other.margins
        for number, wall in other.walls.items():
            self.walls[number][index] = wall

    def see(self, begin: int, index: int, x: Interval) -> None:
        """Called with the input of ReLU `index` for the images from `begin` on."""
        if index not in self.walls:
            self.walls[index] = torch.empty(len(self.images), *x.upper.shape[1:], dtype=torch.float32)
        wall = x.upper.clamp(max=0).mul_(2 * (1 - 2.0**-21))  # 0 where l > 0
        wall.add_(x.lower.clamp(min=0), alpha=2 * (1 + 2.0**-21))
        self.walls[index][begin : begin + len(wall)].copy_(wall)


@dataclass(frozen=True)
class _Map:
    """An affine step: B' = center(B), A' = outward * spread(A) + flushed."""

    center: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    outward: float  # f
    flushed: float  # 4F


def _affine(step: Affine, factor: float) -> _Map:
    """The step with its weights multiplied by `factor`."""
    weight = step.weight * factor
    absolute, n = weight.abs(), step.inner_length
    depth, center, spread = n, _plain(step, weight), _plain(step, absolute)
    if isinstance(step, Linear):
        (center, depth), (spread, _) = (blocked_linear(w, torch.zeros_like(step.bias)) for w in (weight, absolute))
    outward = 1 + 2.1 * (gamma(depth + 2, U32) + 5 * U32) + 20 * U32
    flushed = 4 * ((2 * n + 2) * 2.0**-125 + 2.0**-122 * float(absolute.flatten(1).double().sum(1).max()))
    return _Map(center, spread, outward, flushed)


def _plain(step: Any, weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: step.map(x, weight)


def _like(eps: Tensor, images: Tensor) -> Tensor:
    return eps.view(-1, *(1,) * (images.dim() - 1))


def _usable() -> bool:
    try:
        preconditions.check_backend(DEPLOYED)
    except UnsoundSettingError:
        return False
    return True
