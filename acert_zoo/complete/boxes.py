"""Boxes of the hidden values for the search: interval bounds, tightened once by CROWN in float32.

They start from the rigorous float64 interval bounds, but what tightens them is plain float32: nothing here is a proof.
"""

from __future__ import annotations

import functools
import time

import torch

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.complete.linear_bounds import LinearBounds
from acert_zoo.network.graph import Network, ReLU

_CHUNK_BYTES = 2**24  # coefficients of one value, all rows of a chunk


@torch.no_grad()
def search_boxes(
    network: Network, rigorous: RigorousNetwork, box: Interval, *, deadline: float = float("inf")
) -> list[Interval]:
    """Boxes of all values but the logits over the input box [1, *input] (float64).

    Raises:
        TimeoutError: `deadline`, a value of `time.perf_counter()`, has passed.
    """
    refined = refined_values(network)
    tighten = functools.partial(_tighten, network, refined, deadline)
    return rigorous.boxes(box, tighten)


def refined_values(network: Network) -> frozenset[int]:
    """Values read by a ReLU that lie behind another one: only there CROWN can be tighter than intervals."""
    behind = {0: False}
    for index, step in enumerate(network.steps, 1):
        behind[index] = isinstance(step, ReLU) or any(behind[i] for i in step.inputs)
    return frozenset(s.inputs[0] for s in network.steps if isinstance(s, ReLU) and behind[s.inputs[0]])


def _tighten(
    network: Network, refined: frozenset[int], deadline: float, index: int, values: list[Interval], box: Interval
) -> Interval:
    if index not in refined:
        return box
    lower, upper = box.lower.flatten().float(), box.upper.flatten().float()
    open_ = ((lower < 0) & (upper > 0)).nonzero().squeeze(1)
    bounds = LinearBounds(network, values)
    size = max(1, _CHUNK_BYTES // (4 * max(c.numel() for c in bounds.center)))
    for part in open_.split(size) if len(open_) else ():
        for sign in (1.0, -1.0):
            if time.perf_counter() > deadline:
                raise TimeoutError("the hidden boxes did not end in time")
            rows = torch.zeros(len(part), lower.numel())
            rows[torch.arange(len(part)), part] = sign
            found = bounds.lower_bounds(index, rows.view(-1, *box.lower.shape[1:]))
            if sign > 0:
                lower[part] = torch.maximum(lower[part], found)
            else:
                upper[part] = torch.minimum(upper[part], -found)
    upper = torch.maximum(lower, upper)  # their rounding may cross them
    return Interval(lower.double().view(box.lower.shape), upper.double().view(box.upper.shape))
