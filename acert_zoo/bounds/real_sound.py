"""The float64 rules of level `real-sound`: interval bounds that stay true in spite of their own rounding.

Notation: u = 2^-53, g(k) = k u / (1 - k u), fl(.) = one float64 operation, |.| elementwise. A step uses
k = c g(L + 16) and tiny = c 2^-800; c = 1 except in cascades. L is the *depth* of our evaluation: the inner length n
(products per output), or less where long sums are formed in blocks (`blocked_sums.py`). Where a step can be evaluated
in several ways, L is the largest of their depths.

**The standard bound** (Higham 2002, sections 3.1 and 4.2): products and a bias, summed in any order, with or without
FMA, such that none passes through more than L + 1 roundings, deviate from W m + b by at most
g(L + 1)(|W||m| + |b|) + U, where U <= (2n + 1) 2^-1021 collects underflow, flush-to-zero included. In an unblocked sum
each of n products is rounded once and passes through at most n additions: L = n. (n products and a bias are added up
by n additions, in whatever order, bias first or last, in however many partial sums and threads. Nothing is rounded
where a zero is added or multiplied: a kernel's padding, unfolded columns, empty accumulators; nor by the factors 1 that
matrix products take, and FMA saves roundings.) In the sums |W| r there is no bias, so none passes through more than L
roundings. The bound holds for inner products only, not for Winograd, FFT or Strassen kernels.

**Affine rule.** Input box [lo, hi], finite. m = fl((lo + hi)/2): any m serves, since what counts is the radius about
it. r0 = max(fl(hi - m), fl(m - lo)) >= 0; fl(a) = a/(1 + e), |e| <= u, so the true radius is rho <= r0 (1 + u). Then
    r = fl(r0 (1 + 4u + k) + k|m|),    c = fl(W m + b),    d = fl((1 + k) fl(|W| r) + t),
    lo' = fl(c - d),    hi' = fl(c + d)
with t >= k|b| + tiny sum|W| per output, rounded up (so the radius is in effect r + tiny).
Claim: W h + b lies in [lo', hi'] for every h in the box.
*Proof.* g(L + 16) <= 2^-27 by the preconditions and k <= 2^-17. With (1 + 4u + k)(1 - u)^4 >= 1 + k - u and
k (1 - u)^3 >= k - u, r >= rho + K(|m| + rho) for K := k - u >= g(L + 15). Up to underflow fl(|W| r) >= (1 - g(L))|W| r,
and (1 + k)(1 - g(L))(1 - u)^4 >= 1 + 12u - k^2 - ... >= 1 for c = 1, all the more for larger c. Hence
    d (1 - u) >= |W| rho + K |W|(|m| + rho) + K|b| + [tiny sum|W| / 2 - U].
The bracket is >= 0: a row either is all zeros (then no product rounds and U = 0) or has some |w| >= 2^-149, and
2^-950 > U for n < 2^60. (With tiny = 2^-1074, products of 2^-149 weights vanish and the bound is wrong.) On the other
side, with S = |W||m| + |b|: fl(c - d) <= c - d + u(|c| + d), c <= W m + b + g(L + 1) S + U, and |c| <= 2 S + U.
So lo' <= W m + b - |W| rho as soon as K >= g(L + 4), which holds with 11u of room; hi' likewise. QED

Inside the rule nothing is moved by nextafter: the slack between g(L + 4) and g(L + 16) covers those roundings. Only
the box, Normalize, Add and the centring of BatchNorm, which have no such slack, use `up` and `down`. Of k r and k d
either one alone covers the rounding of |W| r; k|m| and k|b| are each needed.
k = g(2n + 16) would do too: L + 16 <= 2n + 16, as L <= n + 1. The smaller constants keep the widening of most networks
below 1e-9 at eps = 1e-4. They are no smaller than they must be: sums exist that use up all but the 16 (tests build
them, in every way of evaluation).

**Widening.** An output interval exceeds the exact image of its input interval by at most
6k(|W|(|m| + r) + |b|) + |W| 2^-798 at each end (in the last term |W| stands for the whole kernel, padding included).

**Nesting** (cascades). If one input box lies in another, the outputs of the rule with c on the inner box lie within
those with 5c on the outer one, k being that of c. With A = |W| max(|lo|, |hi|) + |b|, monotone in the box:
the inner rule widens by at most (2k + g(L + 14))(1 + small) A < 3.1k A. (k|m| + k r make one k, k d and k|b| another.
|W||m| + |b| goes through g(L + 1) of c, u of c - d and 2u for m, which may lie u max(|lo|, |hi|) off the centre;
|W| r instead through g(L) and 14u: these 3, u in r0, 5u in its factor, 2u in r, 3u in d.) The outer rule widens by at
least (5k - g(L + 4))(1 - small) A > 3.9k A, as in the proof above; tiny likewise. `up`, `down`, +, - and / are
monotone. Both hold for every way of evaluating the step (other orders of summation, batches of other sizes,
`nonnegative_boxes.py`), as long as all of them share one k. An overflow is no part of this: nesting speaks of finite
bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acert_zoo.bounds.blocked_sums import blocked_conv, blocked_linear
from acert_zoo.bounds.directed_rounding import U64, down, gamma, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.nonnegative_boxes import FEWEST_IMAGES, Nonnegative, shifted_depth, suits
from acert_zoo.network.layers import Affine, AvgPool, BatchNorm, Conv, Linear, Normalize, Step
from acert_zoo.network.rule_table import RuleTable

TINY = 2.0**-800  # above every underflow, products of 2^-149 weights and flush-to-zero included (see the proof)
LOOSE = 2.0**-20  # far above the rounding of the slack's own operations (n u < 2^-27), far below anything visible


@dataclass(frozen=True)
class Terms:
    """The constants of one affine step; the proof needs each of them (tests remove them one by one)."""

    mid: float  # k of k|m|
    rad: float  # k of k r
    dev: float  # k of k d
    bias: float  # k of k|b|
    tiny: float  # in effect added to every radius
    floor: float = 0.0  # added to every deviation (float32-deployed)


def real_sound_terms(depth: int, constant: float) -> Terms:
    """Terms of an affine step of this depth at `real-sound`."""
    k = constant * gamma(depth + 16, U64)
    return Terms(mid=k, rad=k, dev=k, bias=k, tiny=constant * TINY)


def input_box(images: Tensor, eps: Tensor) -> Interval:
    """A float64 box that holds B(x, eps) cut with [0, 1]^d.

    fl(x - eps) and fl(x + eps), moved outward by nextafter, then clipped. An eps below 2^-800 is raised to it, so that
    nothing here or in a Normalize that reads pixels underflows (a float32 and such an eps differ by 0 or over 2^-210).

    Args:
        images: exact float32 pixels [N, C, H, W].
        eps: float64, shape [1] or [N], pixel units.
    """
    x = images.to(torch.float64, memory_format=torch.contiguous_format)
    eps = eps.clamp(min=TINY).view(-1, *(1,) * (x.dim() - 1))
    return Interval(down(x - eps).clamp_(min=0.0), up(x + eps).clamp_(max=1.0))


def normalize_box(box: Interval, mean: Tensor, std: Tensor) -> Interval:
    """Encloses (x - mean) / std: both operations are monotone in x; each end is moved outward after each of them."""
    return Interval(down(down(box.lower - mean) / std), up(up(box.upper - mean) / std))


def add_boxes(a: Interval, b: Interval) -> Interval:
    """Encloses the sum; where a + b overflows, the largest finite number below (above) it is still a bound."""
    return Interval(down(a.lower + b.lower), up(a.upper + b.upper))


def guard_overflow(x: Interval) -> Interval:
    """[-inf, inf] where an end is NaN or infinite on the wrong side.

    c = +inf (an overflow, perhaps only of a partial sum) would give the lower bound +inf and prove anything. The
    infinite interval makes every later output that depends on it NaN or infinite, and `margins` refuses those.
    """
    if math.isfinite(float(x.upper.sum())):  # the usual case: where c + d is finite, so are c and d
        return x
    bad = ~((x.lower < math.inf) & (x.upper > -math.inf))
    return Interval(x.lower.masked_fill(bad, -math.inf), x.upper.masked_fill(bad, math.inf))


def center_radius(x: Interval, terms: Terms) -> tuple[Tensor, Tensor]:
    """(m, r) of the affine rule."""
    m = (x.lower + x.upper).mul_(0.5)
    r = torch.maximum(x.upper - m, m - x.lower)
    return m, r.mul_(1 + 4 * U64 + terms.rad).add_(m.abs(), alpha=terms.mid)


def slack(weight_sums: Tensor, bias: Tensor, terms: Terms) -> Tensor:
    """t of the affine rule, per output, from the row sums of |W|."""
    return (terms.bias * bias.abs() + terms.tiny * weight_sums) * (1 + LOOSE) + terms.floor


def combine(c: Tensor, d: Tensor) -> Interval:
    """[lo', hi'] of the affine rule from c and d."""
    return guard_overflow(Interval(c - d, c + d))


_Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class AffineMap:
    """An affine step ready for the rule: W m + b and |W| r as functions, t shaped like one output."""

    center: _Map
    spread: _Map
    slack: Tensor
    terms: Terms
    largest_sum: float  # max over outputs of the sum of |W| that a partial sum can reach
    largest_bias: float
    nonnegative: Nonnegative | None = None  # c and d of a box with lo >= 0, sooner


class RealSound:
    """The arithmetic of one level; `Float32Deployed` overrides what differs there.

    Args:
        constant: the c of k and tiny.
    """

    def __init__(self, constant: float = 1.0) -> None:
        self.constant = constant

    def terms(self, n: int, depth: int, *, pooling: bool = False) -> Terms:
        """The constants of a hidden affine step (or of an average over n values) that is evaluated with this depth."""
        return real_sound_terms(depth, self.constant)

    def prepare(self, step: Step) -> AffineMap:
        """Everything the affine rule needs of a step with float64 tensors, computed once."""
        return _MAPS[step](self, step)

    def affine(self, step: AffineMap, x: Interval, alive: Tensor, *, nonnegative: bool = False) -> Interval:
        """The affine rule; `nonnegative`: lo >= 0 is known."""
        if nonnegative and step.nonnegative is not None and len(x.lower) >= FEWEST_IMAGES:
            return combine(*step.nonnegative(x))
        m, r = center_radius(x, step.terms)
        c, d = step.center(m), step.spread(r)
        return combine(c, torch.add(per_channel(step.slack.to(c.device), c), d, alpha=1 + step.terms.dev, out=d))

    def normalize(self, step: Normalize, x: Interval, alive: Tensor) -> Interval:
        return normalize_box(x, per_channel(step.mean, x.lower), per_channel(step.std, x.lower))

    def add(self, a: Interval, b: Interval, alive: Tensor) -> Interval:
        return add_boxes(a, b)

    def sign(self, x: Interval, alive: Tensor) -> Interval:
        """Monotone, and free of rounding."""
        return Interval(x.lower.sign(), x.upper.sign())

    def function(self, enclose: Callable[..., Interval], x: Interval, alive: Tensor) -> Interval:
        """`enclose`: one of `activations.py`. It maps an infinite interval to the function's whole range."""
        return enclose(x)


def per_channel(t: Tensor, like: Tensor) -> Tensor:
    """A per-channel tensor shaped so that it broadcasts along axis 1 of `like`."""
    return t.view(1, -1, *(1,) * (like.dim() - 2))


def _map_of_weights(
    arithmetic: RealSound, step: Affine, center: _Map, spread: _Map, depth: int, suited: bool
) -> AffineMap:
    weight_sums = step.weight.abs().flatten(1).sum(1)
    terms = arithmetic.terms(step.inner_length, depth)
    t = slack(weight_sums, step.bias, terms)
    sooner = None
    if suited and isinstance(step, Conv) and terms.mid <= 2**-5:
        sooner = Nonnegative(step, t, max(terms.mid, terms.rad), terms.dev)
    return AffineMap(center, spread, t, terms, float(weight_sums.max()), float(step.bias.abs().max()), sooner)


def _linear_map(arithmetic: RealSound, step: Linear) -> AffineMap:
    return _map_of_weights(arithmetic, step, *blocked_linear(step.weight, step.bias), False)


def _conv_map(arithmetic: RealSound, step: Conv) -> AffineMap:
    center, spread, depth = blocked_conv(step, step.weight, step.bias)
    suited = suits(step)
    if suited:  # one k for both ways, which nesting needs: a gate sees batches of any size
        depth = max(depth, shifted_depth(step))
    return _map_of_weights(arithmetic, step, center, spread, depth, suited)


def _pooling_map(arithmetic: RealSound, step: AvgPool) -> AffineMap:
    """W = 1/n in every place: n - 1 additions and one division, no bias."""
    n, one = step.inner_length, torch.ones(1, dtype=torch.float64)
    terms = arithmetic.terms(n, n, pooling=True)
    return AffineMap(step, step, slack(one, 0 * one, terms), terms, float(n), 0.0)


def _batchnorm_map(arithmetic: RealSound, step: BatchNorm) -> AffineMap:
    """gamma / sqrt(var + epsilon) v + beta of a v that is centred already.

    W = gamma / sqrt(var + epsilon) has up to four roundings of its own (vector libraries' roots are within one unit in
    the last place, which is two of them): K >= g(L + 8) is needed. It is 0 or at least
    2^-149 / 2^64, so that tiny |W| >= 2^-1013, which is still above U = 3 * 2^-1021.
    """
    terms = arithmetic.terms(1, 1)
    scale, bias = step.gamma / torch.sqrt(step.var + step.epsilon), step.beta
    return AffineMap(
        lambda m: m * per_channel(scale, m) + per_channel(bias, m),
        lambda r: r * per_channel(scale.abs(), r),
        slack(scale.abs(), bias, terms),
        terms,
        float(scale.abs().max()),
        float(bias.abs().max()),
    )


_MAPS: RuleTable[Callable[[RealSound, Any], AffineMap]] = RuleTable(
    "affine", {Linear: _linear_map, Conv: _conv_map, AvgPool: _pooling_map, BatchNorm: _batchnorm_map}, {}
)
