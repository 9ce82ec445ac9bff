"""Multipliers of a case in which every sign is known: the dual of a linear program, where SciPy is installed.

With every sign fixed the network is affine, v -> a v + b, over the box of the value at which linear bounds end, and the
constraints s_i z_i(v) >= 0 are affine too. The best multipliers are optimal dual values. The program is made elastic,

    minimise a v + P t   subject to   s_i z_i(v) + t >= 0 for all i,  v in its box,  t >= 0,

so that it also has a solution where the constraints contradict each other; P bounds the sum of the multipliers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo.bounds.crown_rules import covered
from acert_zoo.complete.linear_bounds import LinearBounds
from acert_zoo.network.layers import ReLU

PENALTY = 1e4
MAX_INPUTS = 4096


@torch.no_grad()
def dual_multipliers(bounds: LinearBounds, row: Tensor, sign: Tensor) -> Tensor | None:
    """beta [T] for a row [K] over the logits; None without SciPy, for larger inputs, or where bounds end in two values.

    Args:
        sign: [T], none of them 0.
    """
    try:
        from scipy.optimize import linprog
    except ImportError:
        return None
    begin = _begin(bounds)
    if begin is None or bounds.center[begin].numel() > MAX_INPUTS:
        return None
    lower, upper = (end.flatten().double() for end in bounds.boxes[begin])
    size = len(lower)
    points = torch.cat([torch.zeros(1, size), torch.eye(size)]).to(bounds.dtype)
    z, logits = _affine(bounds, begin, points.view(-1, *bounds.boxes[begin].lower.shape[1:]), sign)
    z, objective = z.double(), (logits @ row).double()
    slope = (objective[1:] - objective[0]).numpy()
    constraints = -(sign.double() * (z[1:] - z[0])).t()
    matrix = torch.cat([constraints, -torch.ones(len(constraints), 1, dtype=torch.float64)], dim=1).numpy()
    limits = (sign.double() * z[0]).numpy()
    ends = [*zip(lower.tolist(), upper.tolist(), strict=True), (0, None)]
    found = linprog([*slope, PENALTY], A_ub=matrix, b_ub=limits, bounds=ends, method="highs")
    if found.status != 0:
        return None
    return torch.tensor(-found.ineqlin.marginals).clamp(min=0).to(bounds.dtype)


def _begin(bounds: LinearBounds) -> int | None:
    """The value at which backward passes end, where it is the same for all of them."""
    steps = bounds.network.steps
    ends, pending, seen = set(), {len(steps)}, set()
    while pending:
        index = pending.pop()
        if index == 0 or not covered(steps[index - 1]):
            ends.add(index)
            continue
        seen.add(index)
        pending |= set(steps[index - 1].inputs) - seen
    return ends.pop() if len(ends) == 1 else None


def _affine(bounds: LinearBounds, begin: int, points: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """(z of the open neurons [S, T], logits [S, K]) at values [S, *value] of `begin`, with every sign as given."""
    values = {begin: points}
    z = points.new_zeros(len(points), bounds.columns)
    for index, step in enumerate(bounds.network.steps):
        if index + 1 <= begin or any(i not in values for i in step.inputs):
            continue
        inputs = [values[i] for i in step.inputs]
        if not isinstance(step, ReLU):
            values[index + 1] = step(*inputs)
            continue
        layer, flat = bounds.layers[index], inputs[0].flatten(1)
        own = flat.index_select(1, layer.index)
        z[:, layer.columns] = own
        out = flat * layer.active
        out.index_copy_(1, layer.index, own * (sign[layer.columns] > 0))
        values[index + 1] = out.view(inputs[0].shape)
    return z, values[len(bounds.network.steps)]
