"""Branch and bound over ReLU signs (Bunel et al. 2020, arXiv 1909.06588; bounds as in beta-CROWN), in float32.

It searches for a proof and proves nothing: what it returns, trees of splits with slopes and multipliers for every leaf,
is data for `leaf_proof.py`.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from acert_zoo.complete.branching import choose
from acert_zoo.complete.linear_bounds import LinearBounds, Relaxation
from acert_zoo.complete.linear_program import dual_multipliers
from acert_zoo.complete.optimise import Schedule, optimise
from acert_zoo.complete.proof import LEVELS, Proof, RowProof
from acert_zoo.complete.split_tree import Path, SplitTree

CUSHION = 1e-4  # logit units that a leaf must have to spare in float32, so that its float64 proof does not fail
NODE = Schedule(12, alpha=0.05, beta=0.1)
ROOT = Schedule(30)
LAST = Schedule(300, beta=0.1, decay=0.98)  # of a case in which every sign is known


@dataclass(eq=False)
class Leaf:
    """An unproved or proved case of one row: its place in the row's tree, its constraints and the data of its proof."""

    row: int
    node: int
    path: Path  # (column, sign)
    alpha: Tensor  # [T], uint8 k/LEVELS or float32, as `BranchAndBound.packed` says
    beta: Tensor  # float32 [T]
    bound: float


@dataclass(eq=False)
class Tree:
    """One row's tree, its proved leaves by node."""

    tree: SplitTree = field(default_factory=SplitTree)
    proved: dict[int, Leaf] = field(default_factory=dict)


@dataclass(eq=False)
class Frontier:
    """What is left to prove, the lowest bound first."""

    heap: list[tuple[float, int, Leaf]] = field(default_factory=list)
    _order: itertools.count = field(default_factory=itertools.count)  # type: ignore[type-arg]

    def push(self, leaf: Leaf) -> None:
        heapq.heappush(self.heap, (leaf.bound, next(self._order), leaf))

    def pop(self, count: int) -> list[Leaf]:
        return [heapq.heappop(self.heap)[2] for _ in range(min(count, len(self.heap)))]

    def __len__(self) -> int:
        return len(self.heap)


Corner = Callable[[Tensor], bool]  # coefficients of the input [S, *input] -> whether a corner of the box is adversarial


class BranchAndBound:
    """Branch and bound of some rows over one input box.

    Args:
        rows, const: [M, K], [M] over the logits, each to be proved positive on the whole box.
        memory: bytes that a batch, and all unproved leaves together, may each take.
        cushion: what a leaf's bound must exceed to count as proved, in logit units: room for its rigorous proof.
        corner: told of every minimising corner; the search ends once it says that one is adversarial.
        packed: whether slopes are kept as k/255, as files have them. Else they are float32, and may be as exact as
            where two slopes must cancel.
    """

    def __init__(
        self,
        bounds: LinearBounds,
        rows: Tensor,
        const: Tensor,
        *,
        memory: float,
        corner: Corner | None = None,
        candidates: int = 3,
        batch: int = 64,
        cushion: float = CUSHION,
        packed: bool = True,
    ) -> None:
        self.bounds, self.rows, self.const, self.corner = bounds, rows, const, corner
        self.packed = packed
        self.batch = max(2, min(batch, int(memory / bounds.bytes_per_row())))
        self.most = max(self.batch, int(memory / ((5 + (1 if packed else 4)) * bounds.columns + 500)))
        self.candidates, self.cushion = candidates, cushion
        self.trees = [Tree() for _ in range(len(rows))]
        self.frontier = Frontier()
        self.adversarial = False
        self.stuck = False  # a case with nothing left to split
        self.visited = 0

    def open_root(self, row: int, state: Relaxation, bound: float) -> None:
        """Begins with the root of a row that is not proved, state [1, T]."""
        self.frontier.push(Leaf(row, 0, self.bounds.prefix, self._pack(state.alpha[0]), state.beta[0], bound))

    def close_root(self, row: int, state: Relaxation, bound: float) -> None:
        """A row that is proved without a split."""
        self.trees[row].proved[0] = Leaf(row, 0, self.bounds.prefix, self._pack(state.alpha[0]), state.beta[0], bound)

    def done(self) -> list[int]:
        """The rows with nothing left to prove."""
        left = {leaf.row for _, _, leaf in self.frontier.heap}
        return [row for row in range(len(self.trees)) if row not in left]

    def proof(self, chosen: Sequence[int] | None = None) -> Proof:
        """The trees of all rows, or of chosen ones, once they are proved."""
        rows = []
        for row in range(len(self.trees)) if chosen is None else chosen:
            tree = self.trees[row]
            written, nodes = tree.tree.preorder()
            found = [tree.proved[node] for node in nodes]
            multipliers = [float(leaf.beta[column]) for leaf in found for column, _ in leaf.path]
            slopes = torch.stack([leaf.alpha for leaf in found]).numpy()
            rows.append(RowProof(np.array(written, np.int32), slopes, np.array(multipliers, np.float32)))
        return Proof(True, self.bounds.neurons.numpy().astype(np.int32), tuple(rows))

    def failed(self, lower: Sequence[Tensor], chosen: Sequence[int] | None = None) -> list[Leaf]:
        """The leaves without a rigorous bound > 0; lower: from `check_proof` of `proof(chosen)`."""
        rows = range(len(self.trees)) if chosen is None else chosen
        return [
            tree.proved[node]
            for tree, bounds in zip((self.trees[row] for row in rows), lower, strict=True)
            for node, ok in zip(tree.tree.preorder()[1], (bounds > 0).tolist(), strict=True)
            if not ok
        ]

    def reopen(self, leaf: Leaf) -> None:
        """Takes back a leaf whose rigorous proof failed: it will be split further."""
        del self.trees[leaf.row].proved[leaf.node]
        self.frontier.push(leaf)

    @torch.no_grad()
    def run(self, deadline: float) -> str:
        """ "proved", "adversarial", "time", "memory" or "stuck" (every sign is known in a case that is not proved)."""
        while self.frontier:
            if time.perf_counter() > deadline:
                return "time"
            if len(self.frontier) > self.most:
                return "memory"
            self._expand(self.frontier.pop(max(1, self.batch // 2)), deadline)
            if self.adversarial:
                return "adversarial"
            if self.stuck:
                return "stuck"
        return "proved"

    def _expand(self, leaves: list[Leaf], deadline: float) -> None:
        index = torch.tensor([leaf.row for leaf in leaves])
        rows, const = self.rows[index], self.const[index]
        state = self._state(leaves)
        minimum = self.bounds.minimum(rows, const, state)
        columns, both = choose(self.bounds, rows, const, state, minimum, self.candidates, self.batch)
        keep = (columns >= 0).nonzero().squeeze(1)
        if len(keep) < len(leaves):
            self._finish([leaves[i] for i in (columns < 0).nonzero().squeeze(1).tolist()], deadline)
            if len(keep) == 0:
                return
        chosen = torch.cat([keep, keep + len(leaves)])
        both = both.pick(chosen)
        rows, const = rows[keep].repeat(2, 1), const[keep].repeat(2)
        found = optimise(self.bounds, rows, const, both, NODE, target=2 * self.cushion, deadline=deadline)
        self.visited += len(rows)
        quantised = self.quantise(found.state)
        proved = self.bounds.minimum(rows, const, quantised, gradient=False).bounds if self.packed else found.bounds
        if self.corner is not None:
            lowest = found.minimum.corner[(proved <= self.cushion).nonzero().squeeze(1)]
            self.adversarial = len(lowest) > 0 and self.corner(lowest)
        for place, k in enumerate(keep.tolist()):
            leaf, column = leaves[k], int(columns[k])
            nodes = self.trees[leaf.row].tree.split(leaf.node, int(self.bounds.neurons[column]))
            for half, sign in ((0, 1), (1, -1)):
                at = place + half * len(keep)
                self._put(leaf, nodes[half], (*leaf.path, (column, sign)), quantised.pick(at), float(proved[at]))

    def _put(self, parent: Leaf, node: int, path: Path, state: Relaxation, bound: float) -> None:
        leaf = Leaf(parent.row, node, path, self._pack(state.alpha), state.beta, max(bound, parent.bound))
        if bound > self.cushion:
            leaf.bound = bound
            self.trees[leaf.row].proved[node] = leaf
        else:
            self.frontier.push(leaf)

    def _finish(self, leaves: list[Leaf], deadline: float) -> None:
        """Cases in which every sign is known: what is left is a linear program, of which multipliers are the dual."""
        for leaf in leaves:
            state = self._state([leaf])
            rows, const = self.rows[leaf.row : leaf.row + 1], self.const[leaf.row : leaf.row + 1]
            beta = dual_multipliers(self.bounds, rows[0], state.sign[0]) if self.bounds.columns else None
            if beta is not None:
                state = Relaxation(state.alpha, beta.unsqueeze(0), state.sign)
            found = optimise(self.bounds, rows, const, state, LAST, target=self.cushion, deadline=deadline)
            if float(found.bounds) > self.cushion:
                leaf.bound, leaf.beta = float(found.bounds), found.state.beta[0]
                self.trees[leaf.row].proved[leaf.node] = leaf
            else:
                self.frontier.push(leaf)
                self.stuck = True

    def quantise(self, state: Relaxation) -> Relaxation:
        """The relaxation with slopes as they will be kept."""
        return Relaxation((state.alpha * LEVELS).round() / LEVELS, state.beta, state.sign) if self.packed else state

    def _pack(self, alpha: Tensor) -> Tensor:
        return (alpha * LEVELS).round().to(torch.uint8) if self.packed else alpha.float()

    def _state(self, leaves: list[Leaf]) -> Relaxation:
        alpha = torch.stack([leaf.alpha for leaf in leaves]).to(self.bounds.dtype)
        if self.packed:
            alpha /= LEVELS
        beta = torch.stack([leaf.beta for leaf in leaves])
        sign = torch.zeros_like(beta)
        for row, leaf in enumerate(leaves):
            for column, s in leaf.path:
                sign[row, column] = s
        return Relaxation(alpha, beta, sign)
