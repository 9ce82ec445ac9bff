"""The rigorous margins as a function that a root search may call: float64 once, then the change from there.

Near the root the search asks again and again for almost the same box. The first eps of an image is its *anchor*: a
float64 propagation. Another eps close to it costs a float32 propagation of the change (`bounds/box_changes.py`), any
other is a new anchor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo.bounds.box_changes import Anchor, BoxChange
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.bounds.root_finding import find_roots

PROOF_BATCH_SIZE = 128  # images proved at a time
LOST = 0.1  # share of the tolerance that the roundings of a change may take; they cost eps up to 2.5 times as much


def anchored(rigorous: RigorousNetwork, images: Tensor, labels: Tensor, eps: Tensor) -> Anchor:
    """A float64 propagation at `eps`, float64 [N], and what is to be remembered of it."""
    anchor = Anchor(images, labels, eps.clone(), rigorous.head)
    anchor.margins = rigorous.class_margins(images, labels, anchor.eps, anchor.see)
    return anchor


class ProvedMargins:
    """(index [n], eps float64 [n]) -> margins [n, K] of these images; counts its float64 propagations.

    Args:
        change: None where every eps is to be proved in float64.
        images, labels: float32 [N, C, H, W] on the CPU; int64 [N].
        rtol: the relative accuracy in eps that is asked for.
    """

    def __init__(
        self, rigorous: RigorousNetwork, change: BoxChange | None, images: Tensor, labels: Tensor, rtol: float
    ) -> None:
        self.rigorous, self.change, self.images, self.labels = rigorous, change, images, labels
        self.proofs = 0
        self.window = 0.0 if change is None else min(0.01, LOST * rtol / change.loss)
        self.anchor: Anchor | None = None

    def __call__(self, index: Tensor, eps: Tensor) -> Tensor:
        if self.change is None:
            self.proofs += len(index)
            return self.rigorous.class_margins(self.images[index], self.labels[index], eps)
        if self.anchor is None:
            assert torch.equal(index, torch.arange(len(self.labels))), "a search begins with all of its images"
            self.proofs += len(index)
            self.anchor = anchored(self.rigorous, self.images, self.labels, eps)
            return self.anchor.margins.clone()
        begin = self.anchor.eps[index]
        known = (eps - begin).abs() <= begin * self.window
        out = torch.empty(len(index), self.rigorous.network.num_classes, dtype=torch.float64)
        near = known.nonzero().squeeze(1)
        out[near] = self.change.margins(self.anchor, index[near], eps[near])
        # Nothing is known from an anchor that is no bound, or after an overflow: only the label's is infinite.
        known[near] = out[near].isfinite().sum(1) >= out.shape[1] - 1
        if not known.all():
            far = index[~known]
            self.proofs += len(far)
            new = anchored(self.rigorous, self.images[far], self.labels[far], eps[~known])
            self.anchor.put(far, new)
            out[~known] = new.margins
        return out


def prove(
    rigorous: RigorousNetwork,
    change: BoxChange | None,
    images: Tensor,
    labels: Tensor,
    at_zero: Tensor,
    guess: Tensor,
    exponent: Tensor,
    rtol: float,
) -> tuple[Tensor, Tensor, int, int]:
    """(radii, margin bounds there, evaluations, float64 propagations among them): every radius has passed.

    Args:
        rigorous, change, images, labels, rtol: see `ProvedMargins`.
        at_zero: float64 [N], R0 or margins at 0 [N, K]; guess, exponent: float64 [N]; see `find_roots`, which also
            bounds the number of evaluations: each takes at most one float64 propagation and one of a change.
    """
    low, value = torch.zeros_like(guess), torch.zeros_like(guess)
    evaluations = proofs = 0
    for part in torch.arange(len(labels)).chunk(-(-len(labels) // PROOF_BATCH_SIZE)):
        margins = ProvedMargins(rigorous, change, images[part], labels[part], rtol)
        roots = find_roots(margins, at_zero[part], guess[part], exponent[part], (1 - 2.5 * LOST) * rtol)
        low[part], value[part] = roots.low, roots.low_value
        evaluations += roots.evaluations
        proofs += margins.proofs
    return low, value, evaluations, proofs
