"""Boxes of hidden values, each open neuron's by slopes of its own (alpha-CROWN for hidden neurons).

Boxes that CROWN finds with default slopes are loose, and what is loose in one layer is looser in the next: in deep
fully connected networks most of what is missing to a proof is lost there. Layer by layer, slopes for +z_i and -z_i are
found in float32 on the boxes found so far; what they give is then proved by the rigorous backward pass, to which slopes
are mere data, and the intersection with the box that CROWN had proved is kept.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from acert_zoo.bounds import crown_rules
from acert_zoo.bounds.crown_rules import Claim
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_crown import RigorousCrown
from acert_zoo.complete.linear_bounds import LinearBounds
from acert_zoo.complete.optimise import Schedule, optimise
from acert_zoo.network.graph import Network

SCHEDULE = Schedule(20, alpha=0.3, decay=0.9)
_CUSHION = 1e-5  # a neuron whose sign is known by so much needs no better slopes
_CHUNK_BYTES = 2**24  # what the rows of a chunk may take


class HiddenBoxes:
    """Tightens the boxes of one input box; to be passed to `RigorousNetwork.boxes` as `refine`.

    Args:
        crown: of the network. network: the same in float32, for the search of slopes.
        until: a value of `time.perf_counter()`; layers after it keep CROWN's boxes.
        deadline: another one, after which TimeoutError is raised.
    """

    def __init__(
        self,
        crown: RigorousCrown,
        network: Network,
        *,
        schedule: Schedule = SCHEDULE,
        until: float = math.inf,
        deadline: float = math.inf,
    ) -> None:
        self.crown, self.network, self.schedule = crown, network, schedule
        self.until, self.deadline = until, deadline

    @torch.no_grad()
    def __call__(self, index: int, values: list[Interval], box: Interval) -> Interval:
        """The box of value `index`, tightened if a ReLU reads it and lies behind another one.

        Args:
            values: boxes [1, *value] of the earlier values. box: [1, *value], true already.
        """
        box = self.crown.tighten(index, values, box, deadline=self.deadline)
        if index not in self.crown.refined or time.perf_counter() > self.until:
            return box
        bounds = LinearBounds(self.network, values, index)
        open_ = ((box.lower < 0) & (box.upper > 0)).flatten().nonzero().squeeze(1)
        if bounds.columns == 0 or len(open_) == 0:
            return box
        lower, upper = box.lower.flatten().clone(), box.upper.flatten().clone()
        boxes = [*values, box]
        size = max(1, _CHUNK_BYTES // max(bounds.bytes_per_row(), 8 * max(v.lower.numel() for v in boxes)))
        for neurons in open_.split(size):
            if time.perf_counter() > self.until:
                break
            lower[neurons] = torch.maximum(lower[neurons], self._lower_bounds(bounds, index, boxes, neurons, 1.0))
            upper[neurons] = torch.minimum(upper[neurons], -self._lower_bounds(bounds, index, boxes, neurons, -1.0))
        return Interval(lower.view(box.lower.shape), upper.view(box.upper.shape))

    def _lower_bounds(
        self, bounds: LinearBounds, index: int, boxes: list[Interval], neurons: Tensor, sign: float
    ) -> Tensor:
        """Rigorous lower bounds [S] of sign * z for neurons of value `index`; -inf: nothing is proved."""
        rows = torch.zeros(len(neurons), boxes[index].lower.numel())
        rows[torch.arange(len(neurons)), neurons] = sign
        rows = rows.view(-1, *boxes[index].lower.shape[1:])
        const = torch.zeros(len(neurons))
        start = bounds.start(len(neurons))
        found = optimise(bounds, rows, const, start, self.schedule, target=_CUSHION, deadline=self.until)
        slopes = {}
        for number, layer in bounds.layers.items():
            source = boxes[self.network.steps[number].inputs[0]]
            own = crown_rules.default_slopes(source).flatten(1).repeat(len(neurons), 1)
            own[:, layer.index] = found.state.alpha[:, layer.columns].double()
            slopes[number] = own.view(-1, *source.lower.shape[1:])
        proved = self.crown.pull(Claim(rows.double(), const.double()), index, boxes, slopes)
        return torch.where(proved.isfinite(), proved, -math.inf)


def tight_boxes(
    crown: RigorousCrown, network: Network, box: Interval, *, until: float = math.inf, deadline: float = math.inf
) -> list[Interval]:
    """Rigorous boxes of all values but the logits over the input box [1, *input], float64; arguments as above.

    Raises:
        TimeoutError: the deadline has passed.
    """
    return crown.rigorous.boxes(box, HiddenBoxes(crown, network, until=until, deadline=deadline))
