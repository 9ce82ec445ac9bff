"""Roots of many decreasing functions at once, each approached from below: the search behind the certified radius.

R(eps), a smallest margin bound, is continuous, non-increasing and piecewise linear in eps. With R0 = R(0), the loss
R0 - R(eps) is close to a power of eps, so the curve is nearly a straight line in the coordinates (log eps,
log(R0 - R)), and the secant through its last points gains digits much faster there than in (eps, R). Every step stays
inside the bracket [largest eps that passed, smallest eps that failed], which is halved (in log eps) where steps no
longer shrink.

**A bound on the number of evaluations**, for every function whatsoever (steps, plateaus, NaN): `find_roots` asks for at
most `most_evaluations(rtol)` values of a sample, 37 at rtol 1e-6, which is bisection's number and `SLACK`. That is the
projection of the ITP method (Oliveira and Takahashi 2020, ACM TOMS 47, 5): with w_k the width of the bracket in log eps
after k evaluations, d = log(1 + rtol) and N evaluations allowed, the next point is moved to within
d 2^(N - k - 1) - w_k / 2 of the bracket's middle. *Proof* that w_k <= d 2^(N - k), so that w_N <= d and the sample is
done: it holds at k = 0 by the choice of N; the next bracket is one of the two parts, at most
w_k / 2 + d 2^(N - k - 1) - w_k / 2 = d 2^(N - k - 1) wide. QED. The loop ends after N rounds in any case, so rounding
cannot lengthen it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PATIENCE = 3  # points in a row that bring a root no nearer, after which the bracket is halved
NEAR = 0.03  # within this of the root, relatively, the search aims below it ...
AIM = 0.5  # ... by this share of the tolerance
TRUSTED = 0.003  # a longer step may have come out of any slope
SMALLEST = 1e-30  # no root below this is looked for
SLACK = 10  # evaluations beyond those of bisection that a search may take: ordinary ones need fewer than that in all
CUSHION = 1e-10  # a value of less than this share of R0 might fail when it is computed in another order of summation

Evaluate = Callable[[Tensor, Tensor], Tensor]  # (indices [n], eps [n]) -> margin bounds, [n] or [n, K]


def most_evaluations(rtol: float, smallest: float = SMALLEST, slack: int = SLACK) -> int:
    """The most evaluations that a search of [smallest, 1] down to the relative width `rtol` takes for one sample."""
    width = math.log1p(rtol)
    return math.ceil(math.log2((width - math.log(smallest)) / width)) + slack


def project(point: Tensor, low: Tensor, high: Tensor, rtol: float, left: int) -> Tensor:
    """The eps nearest to `point`, relatively, that keeps the bound on the number of evaluations, `left` of them left.

    Args:
        point, low, high: eps [n] > 0; the bracket's ends.
        left: N - k >= 1.
    """
    low, high = low.log(), high.log()
    middle = (low + high) / 2
    room = (math.ldexp(math.log1p(rtol), left - 1) - (high - low) / 2).clamp(min=0.0)
    wanted = point.log()
    # exp(log(x)) may be off by a rounding: a point that may stay is not moved at all
    moved = torch.minimum(torch.maximum(wanted, middle - room), middle + room)
    return torch.where(moved == wanted, point, moved.exp())


@dataclass
class Roots:
    """State of a search: for every sample a bracket, and the last evaluated point with the local exponent."""

    low: Tensor  # largest eps that passed (0: none yet)
    low_value: Tensor  # R there
    point: Tensor  # where to evaluate next
    exponent: Tensor
    evaluations: int = 0


def find_roots(
    evaluate: Evaluate,
    at_zero: Tensor,
    guess: Tensor,
    exponent: Tensor,
    rtol: float,
    *,
    growth: float = 0.0,
    settle: float | None = None,
    resolution: float = 1e-10,
) -> Roots:
    """Brackets the root of every sample's R to the relative width `rtol`, from below.

    At most `most_evaluations(rtol)` evaluations a sample, whatever the function; every `low` but 0 was seen to pass.

    Args:
        evaluate: R at (indices, eps), or the margins [n, K] whose minimum it is; NaN counts as failed.
        at_zero: R0 > 0 [n], or the margins at 0 [n, K] (inf for what is no margin).
        guess: first points [n]; exponent: first local exponents [n] of R0 - R against eps.
        growth: how the exponent grows with eps: like eps ** growth, where nothing better is known.
        settle: stop as soon as the next point is likely to lie this close (relatively) to the root: enough for a guess.
        resolution: points closer than this (relatively) say nothing about the slope, for rounding noise.

    Each of the K margins is extrapolated by itself, and the root is the first of theirs: R has a kink wherever another
    class takes over, a single margin has none there.

    A sample is done when its bracket is narrow enough, or when the root estimated through its last points is that
    close above the largest eps that passed (so a plateau just above 0 ends a search below the root).
    """
    n, margins = len(at_zero), _columns(at_zero)
    low, low_value = torch.zeros(n, dtype=torch.float64), margins.amin(1)
    smallest = low_value.clone()
    # Nothing failed yet: an end just above 1, so that 1 itself is a point inside the bracket.
    high = torch.full_like(low, 1 + rtol)
    point = guess.double().nan_to_num(SMALLEST).clamp(SMALLEST, 1.0)
    estimate, inverse = point.clone(), 1 / exponent.double()
    curve = _Curve(margins.shape, growth)
    inverses = inverse.unsqueeze(1).repeat(1, margins.shape[1])
    stale = torch.zeros(n, dtype=torch.int64)  # points in a row that brought the estimate no nearer
    last_step = torch.full_like(low, math.inf)
    active = torch.arange(n)
    evaluations, most = 0, most_evaluations(rtol)
    for spent in range(1, most + 1):
        if not len(active):
            break
        p = point[active]
        values = _columns(evaluate(active, p))
        value = values.amin(1)  # NaN where there is one
        evaluations += len(active)
        passed = value > CUSHION * smallest[active]
        low[active] = torch.where(passed, p, low[active])
        low_value[active] = torch.where(passed, value, low_value[active])
        high[active] = torch.where(passed, high[active], p)
        lo, hi = low[active], high[active]
        measured, slopes, steps = curve.add(active, p, margins[active], values, inverses[active], resolution)
        inverses[active] = slopes
        step, first = steps.nan_to_num(math.inf).min(1)
        known, inverse[active] = (t.gather(1, first.unsqueeze(1)).squeeze(1) for t in (measured, slopes))
        root = p * torch.exp(step)
        # no usable model: bisect log eps, or walk up or down by a factor of 8 while one end is open
        unfailed = hi > 1
        middle = torch.where(lo > 0, torch.sqrt(lo * hi.clamp(max=1.0)), p * 0.125)
        middle = torch.where(unfailed, (p * 8).clamp(max=1.0), middle)
        estimate[active] = root = torch.where(root.isfinite() & (root > 0), root, middle)
        target = torch.where(step.abs() < NEAR, root * (1 - AIM * rtol), root).clamp(max=1.0)
        # A step is about the error of the point it leaves; that of the next is smaller at least as much again.
        shrunk = torch.where(last_step[active].isinf(), 1.0, step.abs() / last_step[active]).nan_to_num(1.0)
        error = step.abs() * shrunk.clamp(max=1.0)
        stale[active] = torch.where(step.abs() < 0.5 * last_step[active], 0, stale[active] + 1)
        last_step[active] = step.abs()
        outside = (target <= lo) | (target >= hi) | ~target.isfinite()
        bisect = outside | ((stale[active] >= PATIENCE) & ~unfailed)
        below = lo.clamp(min=SMALLEST)  # the bracket's lower end in log eps
        wanted = torch.where(bisect, middle, target).clamp(SMALLEST, 1.0)
        if spent < most:
            point[active] = project(wanted, below, hi, rtol, most - spent).clamp(max=1.0)
        close = (root <= lo * (1 + rtol)) & known & passed  # the model's word, at a point that passed
        if settle is not None:
            close |= (error < settle) & (step.abs() < TRUSTED) & known
        active = active[~((hi <= below * (1 + rtol)) | (lo >= 1.0) | close)]
    return Roots(low, low_value, estimate, 1 / inverse, evaluations)


def _columns(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.unsqueeze(1)


class _Curve:
    """The last three points of every margin of every sample, as h = log((R0 - R) / R0) and z = log eps.

    The root is z(0).

    z(h) is extrapolated by the parabola through three points where they agree about the slope, else by the line
    through two, else along the slope known before, at first bent by the growth of the exponent.
    """

    def __init__(self, shape: Sequence[int], growth: float) -> None:
        self.growth = growth
        self.h = torch.full((2, *shape), math.nan, dtype=torch.float64)
        self.z = torch.full((2, shape[0], 1), math.nan, dtype=torch.float64)

    def add(
        self, index: Tensor, eps: Tensor, at_zero: Tensor, value: Tensor, inverse: Tensor, resolution: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(whether a slope was measured, dz/dh at the root, z(0) - z) after R(eps) = value; `inverse`: dz/dh before.

        All are [n, K] but eps [n].
        """
        h, z = torch.log((at_zero - value) / at_zero), torch.log(eps).unsqueeze(1)
        (h1, h0), (z1, z0) = self.h[:, index], self.z[:, index]
        apart = (z - z1).abs() > resolution
        line, before = (z - z1) / (h - h1), (z1 - z0) / (h1 - h0)
        measured = apart & line.isfinite() & (line > 0)
        slope = torch.where(measured, line, inverse)
        bend = (line - before) / (h - h0)
        curved = measured & bend.isfinite() & (bend * h1).abs().lt(0.7 * line) & ((line + bend * (-h - h1)) > 0)
        bent = torch.log1p(-h * slope * self.growth) / self.growth if self.growth > 0.01 else -h * slope
        step = torch.where(z1.isnan() & bent.isfinite(), bent, -h * slope)
        step = torch.where(curved, -h * (line - bend * h1), step)
        slope = torch.where(curved, line - bend * (h + h1), slope)
        keep = apart | z1.isnan()
        for kept, new, last in ((self.h, h, h1), (self.z, z, z1)):
            kept[1, index] = torch.where(keep, last, kept[1, index])
            kept[0, index] = torch.where(keep, new, kept[0, index])
        return measured | ~apart, slope, step
