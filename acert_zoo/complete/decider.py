"""The funnel: what is cheap first, for each image until it is decided or its time is over.

Misclassified; PGD; interval bounds (these in batches of images); then one image at a time, all rows and cases in
batches: CROWN-IBP; CROWN; alpha-CROWN; a stronger attack; branch and bound. The boxes of hidden values are rigorous
from the start (float64, rounded outward); all else is float32 and only searches. What it found is then proved in
float64 with outward rounding (`proof.py`); where a leaf fails, the search goes on from there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from acert_zoo.attacks.attack import attack
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import input_box
from acert_zoo.complete.branch_and_bound import CUSHION, ROOT, BranchAndBound
from acert_zoo.complete.leaf_proof import LeafProver
from acert_zoo.complete.linear_bounds import LinearBounds, Relaxation
from acert_zoo.complete.optimise import optimise
from acert_zoo.complete.proof import LEVELS, Proof, check_proof, default_proof
from acert_zoo.complete.question import margin_rows
from acert_zoo.complete.refutation import CornerSearch, refutes
from acert_zoo.complete.verdict import BRANCH_AND_BOUND, NOT_ROBUST, ROBUST, UNDECIDED, Verdict
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import round_down, round_up
from acert_zoo.network.graph import Network

DEFAULT_BUDGET = 60.0  # seconds an image
DEFAULT_MEMORY = 2**30  # bytes


@dataclass(frozen=True)
class Limits:
    """Attributes:
    budget: seconds of wall time an image may take. memory: bytes that a batch of cases may take, and all waiting ones.
    steps, restarts: of the first PGD; before branch and bound there is one of twice the steps and thrice the restarts.
    """

    budget: float = DEFAULT_BUDGET
    memory: float = DEFAULT_MEMORY
    steps: int = 30
    restarts: int = 2

    def __post_init__(self) -> None:
        if not (self.budget > 0 and self.memory >= 2**20):
            raise InvalidInputError(
                f"budget must be > 0 seconds and memory at least 2^20 bytes, got {self.budget!r} and {self.memory!r}"
            )


class Decider:
    """Decides images of one classifier at one radius.

    Args:
        model: the module, for attacks. network: what it computes, float32, on the CPU.
        eps: exact radius, pixel units. Proofs are made at the float64 at or above it, attacks at or below it.

    Raises:
        UnsoundSettingError, UnsupportedLayerError: as `RigorousNetwork`.
    """

    def __init__(self, model: nn.Module, network: Network, eps: Fraction, limits: Limits | None = None) -> None:
        self.model, self.network, self.limits = model, network, limits or Limits()
        self.prover = LeafProver(network)
        self.rigorous = self.prover.crown.rigorous
        self.above, self.below = round_up(eps), round_down(eps)
        self.leaf_seconds = 0.005  # what the last proof took, a leaf

    def at(self, eps: Fraction, limits: Limits | None = None) -> Decider:
        """A decider of the same network at another radius, with other limits."""
        other = copy.copy(self)
        other.above, other.below, other.limits = round_up(eps), round_down(eps), limits or self.limits
        return other

    def __call__(self, images: Tensor, labels: Tensor) -> Iterator[Verdict]:
        """Verdicts of images float32 [N, C, H, W] with labels int64 [N], one after the other."""
        started = time.perf_counter()
        with torch.no_grad():
            prediction = self.network(images).argmax(1)
        found: list[Verdict | None] = [None] * len(images)
        options = {"steps": self.limits.steps, "restarts": self.limits.restarts}
        attacked = attack(self.model, images, labels, Fraction(self.below), **options)  # type: ignore[arg-type]
        left = []
        for i in range(len(images)):
            found[i] = self.refuted(
                images[i : i + 1], int(labels[i]), attacked.adversarial[i : i + 1], attacked.attack[i]
            )
            if found[i] is None:
                left.append(i)
        rest = torch.tensor(left, dtype=torch.int64)
        margins = self.rigorous.margins(images[rest], labels[rest], self.above)
        shared = (time.perf_counter() - started) / max(1, len(images))
        for i, margin in zip(left, margins.tolist(), strict=True):
            if margin > 0:
                found[i] = Verdict(ROBUST, "ibp", int(prediction[i]), 0.0, bound=margin)
        for i, verdict in enumerate(found):
            begun = time.perf_counter()
            if verdict is None:
                search = _ImageSearch(self, images[i : i + 1], int(labels[i]), begun + self.limits.budget - shared)
                verdict = search.decide(int(prediction[i]))
            seconds = shared + time.perf_counter() - begun
            yield replace(verdict, seconds=seconds)

    def refuted(self, image: Tensor, label: int, point: Tensor, name: str) -> Verdict | None:
        if not name:
            return None
        answer = refutes(self.rigorous, image, label, self.below, point)
        return None if answer is None else Verdict(NOT_ROBUST, name, answer, 0.0, adversarial=point[0].clone())


class _ImageSearch:
    """One image, what interval bounds and a first attack have left of it."""

    def __init__(self, decider: Decider, image: Tensor, label: int, end: float) -> None:
        self.decider, self.image, self.label, self.end = decider, image, label, end
        self.network, self.prover = decider.network, decider.prover
        classes = self.network.num_classes
        self.rows, self.const = margin_rows(label, classes), torch.zeros(classes - 1, dtype=torch.float64)
        self.rows32, self.const32 = self.rows.float(), self.const.float()
        self.box = input_box(image, torch.tensor([decider.above], dtype=torch.float64))

    def decide(self, prediction: int) -> Verdict:
        try:
            return self._decide(prediction)
        except TimeoutError as error:
            return Verdict(UNDECIDED, "", prediction, 0.0, note=str(error))

    @torch.no_grad()
    def _decide(self, prediction: int) -> Verdict:
        intervals = self.prover.boxes(self.box, refine=False)
        bounds = LinearBounds(self.network, intervals)
        if self._lowest(bounds, bounds.start(len(self.rows))) > CUSHION:
            verdict = self._proved(intervals, default_proof(len(self.rows), False), "crown-ibp", prediction)
            if verdict is not None:
                return verdict
        boxes = self.prover.boxes(self.box, deadline=self.end)  # rigorous, and what the search runs on too
        bounds = LinearBounds(self.network, boxes)
        start = bounds.start(len(self.rows))
        if self._lowest(bounds, start) > CUSHION:
            verdict = self._proved(boxes, default_proof(len(self.rows), True), "crown", prediction)
            if verdict is not None:
                return verdict
        found = optimise(bounds, self.rows32, self.const32, start, ROOT, target=3 * CUSHION, deadline=self.end)
        state = Relaxation((found.state.alpha * LEVELS).round() / LEVELS, found.state.beta, found.state.sign)
        lower = bounds.minimum(self.rows32, self.const32, state, gradient=False).bounds
        corner = CornerSearch(self.network, self.prover.crown.rigorous, self.image, self.label, self.decider.below)
        search = BranchAndBound(bounds, self.rows32, self.const32, memory=self.decider.limits.memory, corner=corner)
        for row, value in enumerate(lower.tolist()):
            own = state.pick(slice(row, row + 1))
            if value > CUSHION:
                search.close_root(row, own, value)
            else:
                search.open_root(row, own, value)
        method = BRANCH_AND_BOUND if search.frontier else "alpha-crown"
        if search.frontier:
            verdict = self._attack_again(found.minimum.corner, corner)
            if verdict is not None:
                return verdict
        return self._branch(search, boxes, corner, method, prediction)

    def _attack_again(self, corners: Tensor, corner: CornerSearch) -> Verdict | None:
        if corner(corners):
            return self._corner_verdict(corner)
        limits = self.decider.limits
        for seed in range(1, 4):
            if time.perf_counter() > self.end:
                return None
            found = attack(
                self.decider.model,
                self.image,
                torch.tensor([self.label]),
                Fraction(self.decider.below),
                steps=2 * limits.steps,
                restarts=limits.restarts,
                seed=seed,
            )
            verdict = self.decider.refuted(self.image, self.label, found.adversarial, found.attack[0])
            if verdict is not None:
                return verdict
        return None

    def _corner_verdict(self, corner: CornerSearch) -> Verdict:
        assert corner.found is not None
        point, answer = corner.found
        return Verdict(NOT_ROBUST, BRANCH_AND_BOUND, answer, 0.0, adversarial=point[0].clone())

    def _branch(
        self, search: BranchAndBound, boxes: list[Interval], corner: CornerSearch, method: str, prediction: int
    ) -> Verdict:
        """Searches and proves in turn, until every leaf has passed or the time is over."""
        while True:
            outcome = "time"
            while True:  # in slices, as what is to be proved at the end grows
                limit = self.end - self._reserve(search)
                now = time.perf_counter()
                if now > limit and search.frontier:
                    break
                outcome = search.run(min(limit, now + 1.0))
                if outcome != "time":
                    break
            if outcome == "adversarial":
                return self._corner_verdict(corner)
            if outcome != "proved":
                worst = search.frontier.heap[0][0]
                note = {
                    "time": f"time is over, {len(search.frontier):,} cases are open, the lowest bound is {worst:.4g}",
                    "memory": f"{len(search.frontier):,} open cases do not fit the memory limit",
                    "stuck": "a case in which every sign is known is not proved: its margin is about 0",
                }[outcome]
                return Verdict(UNDECIDED, "", prediction, 0.0, note=note, cases=search.visited)
            proof, started = search.proof(), time.perf_counter()
            bounds = check_proof(self.prover, boxes, self.rows, self.const, proof, deadline=self.end)
            self.decider.leaf_seconds = (time.perf_counter() - started) / proof.leaves
            failed = search.failed(bounds)
            if not failed:
                lowest = min(float(b.min()) for b in bounds)
                return Verdict(ROBUST, method, prediction, 0.0, bound=lowest, proof=proof, cases=proof.leaves)
            for leaf in failed:
                search.reopen(leaf)
            method = BRANCH_AND_BOUND

    def _reserve(self, search: BranchAndBound) -> float:
        """Seconds that the rigorous proof of what is proved so far will take, about."""
        leaves = sum(len(tree.proved) for tree in search.trees)
        return 1.5 * self.decider.leaf_seconds * leaves

    def _lowest(self, bounds: LinearBounds, state: Relaxation) -> float:
        return float(bounds.minimum(self.rows32, self.const32, state, gradient=False).bounds.min())

    def _proved(self, boxes: list[Interval], proof: Proof, method: str, prediction: int) -> Verdict | None:
        bounds = check_proof(self.prover, boxes, self.rows, self.const, proof, deadline=self.end)
        lowest = min(float(b.min()) for b in bounds)
        if not lowest > 0:
            return None
        return Verdict(ROBUST, method, prediction, 0.0, bound=lowest, proof=proof, cases=proof.leaves)
