"""CROWN bounds that stay true in spite of their own rounding: a float64 backward pass with every error accounted for.

CROWN (Zhang et al. 2018, arXiv 1811.00866) carries a linear lower bound from the output back to the input. Here what
is carried is a claim about the real-valued network with the stored weights,

    (*)  target(x) >= sum over j of <A_j, v_j(x)> + beta      for every x in the box,

with v_j the values of the network and A_j, beta *exact float64 numbers*. They start from a row of the last layer, or
from +-e_i at a neuron, and each step below turns one true claim into another by rewriting one v_j through the values
it is computed from. Whatever rounding does to the new A is paid for in beta, against M_j >= |v_j|, the magnitudes of
rigorous interval boxes. So relaxation slopes are mere data: poor ones loosen a bound and cannot make it false.

Notation: u = 2^-53, g(k) = k u/(1 - k u); an inner product of k terms, in any order, has an error of at most
g(k) <|a|, |b|> + k 2^-1021 (Higham 2002, section 3.1; the second part is underflow, flushed or gradual). "Pay e" means
beta <- down(beta - up(e)). TINY = 2^-800 covers every underflow: k < 2^60 of them, times M: TINY (1 + sum of M) is paid
with every e (`crown_rules.pay`).

**Affine** v_o = W v_i + b. A' = fl(W^T A), with m products per entry: |A' - W^T A| <= g(m) |W|^T|A| + m 2^-1021, so
    <A, W v + b> >= <A', v> + <A, b> - g(m) <|A|, |W| M> - m 2^-1021 sum(M).
beta gains fl(<A, b>), whose error is at most g(N) <|A|, |b|>, N outputs. Pay E = <|A|, e>, e = k (|W| M + |b| + TINY),
with k = 4 g(max(m, N, n) + 16): the computed E is at least 1 - g(N + n + 8) >= 1/2 times the exact one without TINY,
which leaves 2 g(max(m, N) + 16) where g(m) or g(N) is needed. TINY in e is for products of |W| M that underflow,
n 2^-1021 an output, which a large A would make count. One product |W| M serves every row.

**Average pooling** is affine with W = 1/n. **BatchNorm** is s (v - mean) + beta_BN with s = gamma/sqrt(var + epsilon),
known within g(4) (an addition, a root, a division); A' = fl(A s) is within g(6)|A||s|, and <A, beta_BN> - <A', mean> is
computed with an error of at most g(2N + 6) of its absolute terms: with 2N for N, the same k covers it, and
e = k (|s| (M + |mean|) + |beta_BN| + TINY).

**ReLU** z -> relu(z), z in [l, u]. l >= 0: A' = A. u <= 0: A' = 0. Otherwise A' = fl(A s), any s in [0, 1]. Rounding is
monotone, so |A'| <= |A| and t = A'/A, a real number, lies in [0, 1]; the claim is proved for the slope t, not s, and
nothing needs paying for the product. If A > 0: relu(z) >= t z, so A relu(z) >= A' z. If A < 0: relu(z) - t z is
convex, at most mu = max(-t l, (1 - t) u) on [l, u], so A relu(z) >= A' z - |A| mu, with
|A| mu = max(|A'| (-l), (|A| - |A'|) u). The sum of these, rounded to nearest, times 1 + 4 g(N + 8), is paid.

**Sum of claims** about one value (residual connections): fl(A + B) is within u |fl(A + B)|; pay 4 u <|fl(A + B)|, M>.

**Concretising** at a value with box [lo, hi]: beta gains fl(sum of A lo over A > 0 and A hi over A < 0); the error is
at most g(2N) <|A|, M>; pay 4 g(2N + 16) <|A|, M>. This rule ends the pass at the first value, and is the rule for steps
that no other one covers (max pooling, Normalize: the latter loses nothing by it, as it maps boxes to boxes).

**Margins.** For each t the larger of this bound and that of `margin_rows.py` on the last box counts: both are true.

**Rows.** V = fl(W_y - W_t), B = fl(b_y - b_t) are within u of the exact rows; pay 4 u <|V|, M> + 4 u |B|.

**Overflow** makes beta -inf or NaN, never large: a non-finite A meets M or a box end in a product that is paid.
Non-finite results are discarded (boxes) or count as not proved (margins).

**Boxes.** `refine=False`: those of `real_sound.py` (CROWN-IBP). `refine=True`: at each neuron that a ReLU reads and
whose sign is open, claims for +z_i and -z_i tighten the box (CROWN); both are true, so their intersection is.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from acert_zoo.bounds import crown_rules, crown_windows, preconditions
from acert_zoo.bounds.crown_rules import Claim, Pulled
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import ReLU, Step
from acert_zoo.network.traversal import backward
from acert_zoo.rounding import BoundMethod, RoundingLevel

ITERATIONS = 40  # steps of Adam of alpha-CROWN
_CHUNK_BYTES = 2**21  # for the coefficients of one value, all rows of a chunk: small enough for caches


class RigorousCrown:
    """Rounding-sound CROWN bounds at level real-sound; see the module's docstring for what is claimed and why.

    Args:
        network: float32, on the CPU, as for `RigorousNetwork`.
        refine: whether open neurons' boxes are tightened by claims of their own (CROWN), or not (CROWN-IBP).
        iterations: how many steps of Adam improve the lower slopes of the last backward pass (alpha-CROWN; 0: none).

    Raises:
        UnsoundSettingError, UnsupportedLayerError: as `RigorousNetwork`.
    """

    def __init__(self, network: Network, *, refine: bool = True, iterations: int = 0) -> None:
        self.rigorous = RigorousNetwork(network, RoundingLevel.REAL_SOUND)
        self.network = self.rigorous.network
        self.refine, self.iterations = refine, iterations
        steps = self.network.steps
        behind = {0: False}  # whether a ReLU lies between the input and a value
        for index, step in enumerate(steps, 1):
            behind[index] = isinstance(step, ReLU) or any(behind[i] for i in step.inputs)
        self.refined = {step.inputs[0] for step in steps if isinstance(step, ReLU) and behind[step.inputs[0]]}

    @torch.no_grad()
    def margins(
        self,
        images: Tensor,
        labels: Tensor,
        eps: Tensor | float,
        slopes: Mapping[int, Tensor] | None = None,
        *,
        deadline: float = math.inf,
    ) -> Tensor:
        """Rigorous lower bounds, float64 [N], of min over t != y of f_y - f_t on B(x, eps); -inf: nothing is proved.

        Args:
            images: float32 pixels [N, C, H, W] in [0, 1]. labels: int64 [N]. eps: one number or float64 [N].
            slopes: for the index of a ReLU step, lower slopes in [0, 1] for the last backward pass: [1, *value], or a
                row for each class t != y, [K - 1, *value]; for one image. Default: 1 where u > -l, else 0, improved by
                `iterations` steps.
            deadline: a value of `time.perf_counter()`.

        Raises:
            InvalidInputError, UnsoundSettingError: as `RigorousNetwork.margins`.
            TimeoutError: the deadline has passed.
        """
        preconditions.check_backend(RoundingLevel.REAL_SOUND)
        sizes = torch.as_tensor(eps, dtype=torch.float64).expand(len(images))
        out = torch.full((len(images),), -math.inf, dtype=torch.float64)
        for i in range(len(images)):
            boxes = self.boxes(images[i : i + 1], sizes[i : i + 1], deadline)
            chosen = slopes or {}
            if slopes is None and self.iterations:
                chosen = self.best_slopes(boxes, int(labels[i]), deadline)
            out[i] = self._margin(boxes, int(labels[i]), chosen)
        return out

    def proves(self, images: Tensor, labels: Tensor, eps: Tensor | float) -> Tensor:
        """[N] bool: whether the label is proved to be the only argmax on B(x, eps)."""
        return self.margins(images, labels, eps) > 0

    @torch.no_grad()
    def boxes(self, image: Tensor, eps: Tensor | float, deadline: float = math.inf) -> list[Interval]:
        """Rigorous boxes of all values but the logits, of one image [1, C, H, W]."""
        tighten = functools.partial(self.tighten, deadline=deadline)
        return self.rigorous.intervals(image, eps, tighten if self.refine else None)

    @torch.no_grad()
    def boxes_over(self, box: Interval, *, refine: bool = True, deadline: float = math.inf) -> list[Interval]:
        """Rigorous boxes of all values but the logits, over any input boxes [N, *input], float64."""
        return self.rigorous.boxes(box, functools.partial(self.tighten, deadline=deadline) if refine else None)

    @torch.enable_grad()
    def best_slopes(self, boxes: list[Interval], label: int, deadline: float = math.inf) -> dict[int, Tensor]:
        """Lower slopes that raise the margins of the last pass, by Adam in plain float64: data for `margins`."""
        head = self.network.head
        others = [t for t in range(self.network.num_classes) if t != label]
        claim = crown_rules.rows(head, label, others, boxes[head.inputs[0]])
        slopes = {}
        for index, step in enumerate(self.network.steps):
            if isinstance(step, ReLU):
                start = crown_rules.default_slopes(boxes[step.inputs[0]])
                slopes[index] = start.repeat(len(others), *(1,) * (start.dim() - 1)).requires_grad_()
        best = {k: s.detach().clone() for k, s in slopes.items()}
        best_bounds = torch.full((len(others),), -math.inf, dtype=torch.float64)
        optimizer = torch.optim.Adam(slopes.values(), lr=0.1)
        for iteration in range(self.iterations + 1):
            _check_time(deadline)
            bounds = self.pull(claim, head.inputs[0], boxes, slopes)
            better = bounds.detach() > best_bounds
            best_bounds[better] = bounds.detach()[better]
            for k, s in slopes.items():
                best[k][better] = s.detach()[better]
            if iteration == self.iterations or not bounds.requires_grad:
                break
            optimizer.zero_grad()
            (-bounds.sum()).backward()
            optimizer.step()
            for s in slopes.values():
                s.data.clamp_(0, 1)
        return best

    def _margin(self, boxes: list[Interval], label: int, slopes: Mapping[int, Tensor]) -> float:
        head, hidden = self.network.head, boxes[self.network.head.inputs[0]]
        others = [t for t in range(self.network.num_classes) if t != label]
        bounds = self.pull(crown_rules.rows(head, label, others, hidden), head.inputs[0], boxes, slopes)
        alive = torch.ones(1, dtype=torch.bool)
        direct = self.rigorous.head.lower(hidden, torch.tensor([label]), alive)[0, others]
        bounds = torch.where(bounds.isfinite(), bounds, -math.inf)
        direct = torch.where(direct.isfinite() & alive, direct, -math.inf)
        return torch.maximum(bounds, direct).min().item()

    def tighten(self, index: int, values: list[Interval], box: Interval, *, deadline: float = math.inf) -> Interval:
        """The box of value `index`, tightened where a ReLU will read it and its sign is open."""
        if index not in self.refined:
            return box
        shape = box.lower.shape[1:]
        count = len(box.lower)
        open_ = ((box.lower < 0) & (box.upper > 0)).flatten(1).nonzero()  # (which box, which neuron)
        lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()
        boxes = [*values, box]
        largest = max(v.lower[0].numel() for v in boxes)
        chunk = max(1, _CHUNK_BYTES // (8 * largest))
        windowed = count == 1 and len(shape) == 3 and crown_windows.suits(self.network, index)
        if windowed:
            chunk *= 8  # windows are that much smaller, at least
        for sign in (1.0, -1.0):
            for part in open_.split(chunk) if len(open_) else ():
                _check_time(deadline)
                which, neuron = part.unbind(1)
                if windowed:
                    bound = crown_windows.pull_windows(self.network, index, boxes, neuron, sign)
                else:
                    a = torch.zeros(len(part), lower.shape[1], dtype=torch.float64)
                    a[torch.arange(len(part)), neuron] = sign
                    claim = Claim(a.view(-1, *shape), torch.zeros(len(part), dtype=torch.float64))
                    own = boxes if count == 1 else [Interval(b.lower[which], b.upper[which]) for b in boxes]
                    bound = self.pull(claim, index, own, {})
                bound = torch.where(bound.isfinite(), bound, -math.inf)
                if sign > 0:
                    lower[which, neuron] = torch.maximum(lower[which, neuron], bound)
                else:
                    upper[which, neuron] = torch.minimum(upper[which, neuron], -bound)
        return Interval(lower.view(box.lower.shape), upper.view(box.upper.shape))

    @torch.no_grad()
    def rows_over(self, boxes: list[Interval], rows: Tensor, const: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rigorous lower bounds [N] of <rows_n, logits> + const_n over box n, by default slopes; -inf: none.

        Also the coefficients [N, *input] of the input that they were concretised from, None where nothing reaches it.

        Args:
            boxes: from `boxes_over`, of N input boxes. rows, const: float64 [N, K], [N], exact.
        """
        preconditions.check_backend(RoundingLevel.REAL_SOUND)
        a, beta = self._carry(Claim(rows, const), len(self.network.steps), boxes, {})
        if a is not None:
            beta = crown_rules.concretise(Claim(a, beta), boxes[0])
        return torch.where(beta.isfinite(), beta, -math.inf), a

    def pull(self, claim: Claim, index: int, boxes: list[Interval], slopes: Mapping[int, Tensor]) -> Tensor:
        """beta [S] after the claim about value `index` has been carried back to the input and concretised."""
        a, beta = self._carry(claim, index, boxes, slopes)
        return beta if a is None else crown_rules.concretise(Claim(a, beta), boxes[0])

    def _carry(
        self, claim: Claim, index: int, boxes: list[Interval], slopes: Mapping[int, Tensor]
    ) -> tuple[Tensor | None, Tensor]:
        """(coefficients of the input, beta) of the claim about value `index`; None where all of it ended before."""

        def pull(number: int, step: Step, claim: Claim) -> Pulled:
            return crown_rules.pull(step, claim, [boxes[i] for i in step.inputs], slopes.get(number))

        return carry(self.network, claim, index, boxes, pull)


def carry(
    network: Network,
    claim: Claim,
    index: int,
    boxes: Sequence[Interval],
    pull: Callable[[int, Step, Claim], Pulled],
) -> tuple[Tensor | None, Tensor]:
    """A claim about value `index` carried back to the input: (its coefficients there, beta).

    The coefficients are None where nothing reaches the input: at a step without a rule a claim is concretised.

    Args:
        boxes: rigorous boxes of the values before `index`.
        pull: (index of a step, the step, claim about its output) -> (coefficients of its inputs, beta).
    """
    beta = claim.beta

    def rule(number: int, step: Step, a: Tensor) -> list[Tensor] | None:
        nonlocal beta
        if not crown_rules.covered(step):
            beta = crown_rules.concretise(Claim(a, beta), boxes[number + 1])
            return None
        parts, beta = pull(number, step, Claim(a, beta))
        return parts

    def merge(value: int, a: Tensor, b: Tensor) -> Tensor:
        nonlocal beta
        total, beta = crown_rules.accumulate(a, b, beta, boxes[value])
        return total

    return backward(network, index, claim.coefficients, rule, merge), beta


def _check_time(deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise TimeoutError("the rigorous check did not end in time")


def rigorous_check(network: Network, method: str) -> RigorousCrown:
    """The rigorous counterpart of a CROWN-family method; also what re-proves certificates of that method."""
    iterations = ITERATIONS if method == BoundMethod.ALPHA_CROWN else 0
    return RigorousCrown(network, refine=method != BoundMethod.CROWN_IBP, iterations=iterations)
