"""Which neuron to split: the filtered smart branching of De Palma et al. 2021 (arXiv 2104.06718), on our scores.

Two cheap scores name candidates: what the relaxation of a neuron loses at the minimising corner (carried forward
through the linear pieces), and the intercept of its upper line, weighed by its coefficient (as in BaBSR, Bunel et al.
2020). Each candidate is then tried: one backward pass for each of its children; the best worse child wins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo.complete.linear_bounds import LinearBounds, Minimum, Relaxation

_NONE = -1.0


def scores(bounds: LinearBounds, state: Relaxation, minimum: Minimum) -> tuple[Tensor, Tensor]:
    """(loss at the corner, weighed intercept), [S, T] each; -1 for neurons that are split already."""
    a, z = minimum.coefficients, minimum.z
    upper_line = bounds.chord * z + bounds.intercept
    relaxed = torch.where(a > 0, state.alpha * z, upper_line)
    loss = a * (z.clamp(min=0) - relaxed)
    intercept = (-a).clamp(min=0) * bounds.intercept + a.clamp(min=0) * torch.minimum(
        state.alpha * -bounds.lower, (1 - state.alpha) * bounds.upper
    )
    done = state.sign != 0
    return loss.masked_fill(done, _NONE), intercept.masked_fill(done, _NONE)


def children(state: Relaxation, rows: Tensor, columns: Tensor) -> Relaxation:
    """Both children of each of `rows` [n], split at `columns` [n]: first all z >= 0, then all z <= 0; [2 n, T]."""
    parts = []
    for sign in (1.0, -1.0):
        part = state.pick(rows)
        part = Relaxation(part.alpha.clone(), part.beta.clone(), part.sign.clone())
        part.sign[torch.arange(len(rows)), columns] = sign
        parts.append(part)
    return Relaxation.join(parts)


@torch.no_grad()
def choose(
    bounds: LinearBounds, rows: Tensor, const: Tensor, state: Relaxation, minimum: Minimum, candidates: int, batch: int
) -> tuple[Tensor, Relaxation]:
    """(column to split [S], the children's states [2 S, T], z >= 0 first); column -1 where nothing is left to split.

    Args:
        candidates: how many neurons of each score are tried. batch: rows that a pass may have.
    """
    count = len(rows)
    if bounds.columns == 0:
        return torch.full((count,), -1), Relaxation.join([state, state])
    picks = [s.topk(min(candidates, s.shape[1]), dim=1).indices for s in scores(bounds, state, minimum)]
    tried = torch.cat(picks, dim=1)
    owner = torch.arange(count).repeat_interleave(tried.shape[1])
    flat = tried.flatten()
    worse = torch.full((len(flat),), -torch.inf, dtype=bounds.dtype)
    for part in torch.arange(len(flat)).split(max(1, batch // 2)):
        both = children(state, owner[part], flat[part])
        source = owner[part].repeat(2)
        found = bounds.minimum(rows[source], const[source], both, gradient=False).bounds
        one, two = found.chunk(2)
        cap = torch.full_like(one, 1e3)  # a child far above 0 is as good as one just above
        worse[part] = torch.minimum(one, two) + 1e-3 * torch.minimum(torch.maximum(one, two), cap)
    taken = state.sign.gather(1, tried) != 0
    worse = worse.view(count, -1).masked_fill(taken, -torch.inf)
    best = worse.argmax(1, keepdim=True)
    column = tried.gather(1, best).squeeze(1)
    column[worse.gather(1, best).squeeze(1) == -torch.inf] = -1
    safe = column.clamp(min=0)
    return column, children(state, torch.arange(count), safe)
