"""What becomes of an image: proved robust, refuted, or undecided."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from acert_zoo.complete.proof import Proof

ROBUST, NOT_ROBUST, UNDECIDED = "robust", "not robust", "undecided"
STATUSES = (ROBUST, NOT_ROBUST, UNDECIDED)
BRANCH_AND_BOUND = "branch-and-bound"
PROOF_METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown", BRANCH_AND_BOUND)  # in order of cost


@dataclass(frozen=True, eq=False)
class Verdict:
    """The answer for one image.

    Attributes:
        status: "robust" (proved in outward-rounded float64, level real-sound), "not robust", or "undecided".
        method: what proved it; or what found the adversarial image ("none": the image itself); or "".
        bound: proved lower bound of the smallest margin on the box, logit units; None unless robust.
        proof: the data of the proof, None for "ibp", which needs none, and unless robust.
        adversarial: float32 [C, H, W] within the box, that the network takes for another class; None unless not robust.
        prediction: what the network answers there, or at the image itself.
        note: why it is undecided.
        seconds: wall time, its share of a batch's included.
        cases: leaves of the proof's trees, or those that were visited in vain.
    """

    status: str
    method: str
    prediction: int
    seconds: float
    bound: float | None = None
    proof: Proof | None = None
    adversarial: Tensor | None = None
    note: str = ""
    cases: int = 0
