"""Slopes and multipliers that raise linear bounds: projected Adam on many rows at once, in float32."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.complete.linear_bounds import LinearBounds, Minimum, Relaxation

_B1, _B2, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Schedule:
    """How long and how boldly: `iterations` steps; learning rates of slopes and multipliers, and their decay a step."""

    iterations: int
    alpha: float = 0.1
    beta: float = 0.05
    decay: float = 0.97


@dataclass(eq=False)
class Optimised:
    """The best bounds [S] that were seen, the relaxation that gives them, and the minimum there (for branching)."""

    bounds: Tensor
    state: Relaxation
    minimum: Minimum


@torch.no_grad()
def optimise(
    bounds: LinearBounds,
    rows: Tensor,
    const: Tensor,
    state: Relaxation,
    schedule: Schedule,
    *,
    target: float = float("inf"),
    deadline: float = float("inf"),
) -> Optimised:
    """Raises the bounds of <rows_s, logits> + const_s; a row that exceeds `target` is left as it is.

    Args:
        rows: [S, K]. const: [S]. state: where to begin; not changed.
        deadline: a value of `time.perf_counter()`, after which the best so far is returned (one pass is always made).
    """
    now = Relaxation(state.alpha.clone(), state.beta.clone(), state.sign)
    found = bounds.minimum(rows, const, now)
    best = Optimised(found.bounds.clone(), Relaxation(now.alpha.clone(), now.beta.clone(), now.sign), found)
    if schedule.iterations == 0:
        return best
    best.minimum = Minimum(found.bounds, found.z.clone(), found.coefficients.clone(), found.corner.clone())
    index = torch.arange(len(rows))  # the rows still at work
    moments = [torch.zeros_like(now.alpha) for _ in range(4)]
    low, high = (now.sign > 0).to(now.alpha.dtype), (now.sign >= 0).to(now.alpha.dtype)
    for step in range(1, schedule.iterations + 1):
        todo = (found.bounds <= target).nonzero().squeeze(1)
        if len(todo) == 0 or time.perf_counter() > deadline:
            break
        if len(todo) < len(index):
            index, now, rows, const = index[todo], now.pick(todo), rows[todo], const[todo]
            low, high, moments = low[todo], high[todo], [m[todo] for m in moments]
            found = Minimum(found.bounds, found.z[todo], found.coefficients[todo], found.corner)
        shrink = schedule.decay ** (step - 1)
        gradient = found.coefficients.clamp_(min=0).mul_(found.z)
        _adam(now.alpha, gradient, moments[0], moments[1], schedule.alpha * shrink, step)
        torch.minimum(torch.maximum(now.alpha, low, out=now.alpha), high, out=now.alpha)
        if schedule.beta and bool((now.sign != 0).any()):
            _adam(now.beta, -now.sign * found.z, moments[2], moments[3], schedule.beta * shrink, step)
            now.beta.clamp_(min=0)
        found = bounds.minimum(rows, const, now)
        better = (found.bounds > best.bounds[index]).nonzero().squeeze(1)
        where = index[better]
        best.bounds[where] = found.bounds[better]
        best.state.alpha[where], best.state.beta[where] = now.alpha[better], now.beta[better]
        best.minimum.z[where], best.minimum.coefficients[where] = found.z[better], found.coefficients[better]
        best.minimum.corner[where] = found.corner[better]
    best.minimum.bounds = best.bounds
    return best


def _adam(x: Tensor, gradient: Tensor, first: Tensor, second: Tensor, rate: float, step: int) -> None:
    """One step of Adam (Kingma and Ba 2015, arXiv 1412.6980), uphill and in place."""
    first.lerp_(gradient, 1 - _B1)
    second.mul_(_B2).addcmul_(gradient, gradient, value=1 - _B2)
    scale = second.div(1 - _B2**step).sqrt_().add_(_TINY)
    x.addcdiv_(first, scale, value=rate / (1 - _B1**step))
