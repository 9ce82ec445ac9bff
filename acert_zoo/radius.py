"""The certified radius: the largest eps in [0, 1] that interval bounds prove, found fast and proved afterwards.

R(x, eps), the smallest IBP margin bound on B(x, eps), is continuous, non-increasing and piecewise linear in eps. The
search uses its shape. With R0 = R(x, 0), the loss R0 - R(x, eps) is close to a power of eps, so the curve is nearly a
straight line in the coordinates (log eps, log(R0 - R)), and the secant through its last two points gains digits much
faster than one in (eps, R). Every step stays inside the bracket [largest eps that passed, smallest eps that failed]; a
step that does not shrink the bracket is followed by a bisection of log eps.

Two stages. Float32 gives a few digits at the price of a few propagations of a shrinking batch, but its rounding noise
is near 1e-6 of R0. So the last digits come from the rigorous float64 bound itself (`bounds/rigorous.py`): its secant
goes on from where float32 ended and aims a little below the root, so that usually the second evaluation passes and ends
it. What is returned is always an eps at which that bound was positive: the proved end of the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.preconditions import ROUNDING_LEVELS
from acert_zoo.bounds.rigorous import RigorousNetwork
from acert_zoo.errors import UnknownNameError
from acert_zoo.network import Network

DEFAULT_BATCH_SIZE = 64
SEARCH_RTOL = 1e-3  # where float32 hands over to float64
PROOF_BATCH_SIZE = 16  # float64 convolutions are fastest while their columns fit the cache
SMALLEST = 1e-30  # no radius below this is looked for
GUESS, EXPONENT = 0.004, 1.2  # first guess r = GUESS * R0 and first exponent, until there is experience
# A proof with less than this share of R0 to spare might fail when it is repeated with another order of summation.
CUSHION = 1e-10

Evaluate = Callable[[Tensor, Tensor], Tensor]  # (indices, eps) -> margin bounds, all [n]


@dataclass(frozen=True)
class RadiusResult:
    """Certified radii of a batch.

    Attributes:
        radius: float64 [N], pixel units; 0 where misclassified or nothing could be proved.
        margin: float64 [N], the margin bound at that radius, in logit units; NaN where radius is 0.
        evaluations: interval propagations spent, summed over images (`proofs` of them rigorous ones in float64).
    """

    radius: Tensor
    margin: Tensor
    evaluations: int
    proofs: int = 0


@dataclass
class Experience:
    """What earlier images taught: log r is about a + b log R0, and the exponent near the root is about `exponent`."""

    sums: Tensor = field(default_factory=lambda: torch.zeros(6, dtype=torch.float64))

    def learn(self, start: Tensor, radius: Tensor, exponent: Tensor) -> None:
        good = (radius > 0) & (radius < 1) & (start > 0) & exponent.isfinite()
        x, y, q = start[good].log(), radius[good].log(), exponent[good]
        self.sums += torch.stack([torch.ones_like(x).sum(), x.sum(), y.sum(), (x * x).sum(), (x * y).sum(), q.sum()])

    def guess(self, start: Tensor) -> Tensor:
        n, sx, sy, sxx, sxy, _ = self.sums.tolist()
        if n < 2:
            return GUESS * start
        variance = max(sxx / n - (sx / n) ** 2, 0.0)
        # ridge towards r proportional to R0, which is what homogeneity suggests
        slope = min(max((sxy / n - sx * sy / n**2 + 0.1) / (variance + 0.1), 0.2), 2.0)
        return torch.exp((sy - slope * sx) / n + slope * start.log())

    @property
    def exponent(self) -> float:
        n, q = self.sums[0].item(), self.sums[5].item()
        return q / n if n else EXPONENT


@dataclass
class Roots:
    """State of a search: for every sample a bracket, and the last evaluated point with the local exponent."""

    low: Tensor  # largest eps that passed (0: none yet)
    low_value: Tensor  # R there
    point: Tensor  # where to evaluate next
    exponent: Tensor
    evaluations: int = 0


def find_roots(evaluate: Evaluate, start: Tensor, guess: Tensor, exponent: Tensor, rtol: float) -> Roots:
    """Brackets the root of every sample's R to the relative width `rtol`, from below.

    Args:
        evaluate: R at (indices, eps); NaN counts as failed.
        start: R0 > 0 [n].
        guess: first points [n]; exponent: first local exponents [n] of R0 - R against eps.

    A sample is done when its bracket is narrow enough, or when the root estimated from its two last points is that
    close above the largest eps that passed.
    """
    n = len(start)
    low, low_value = torch.zeros_like(start), start.clone()
    high = torch.full_like(start, math.inf)
    point = guess.double().clamp(SMALLEST, 1.0)
    last_point, last_loss = torch.full_like(start, math.nan), torch.full_like(start, math.nan)
    exponent = exponent.double().clone()
    estimate = point.clone()
    stale = torch.zeros(n, dtype=torch.int64)  # steps since the bracket last shrank a lot
    active = torch.arange(n)
    evaluations = 0
    while len(active):
        p = point[active]
        value = evaluate(active, p)
        evaluations += len(active)
        passed = value > CUSHION * start[active]
        width = torch.log(high[active] / low[active])
        low[active] = torch.where(passed, p, low[active])
        low_value[active] = torch.where(passed, value, low_value[active])
        high[active] = torch.where(passed, high[active], p)
        # the secant in (log eps, log loss), where both points are usable
        loss = start[active] - value
        measured = torch.log(loss / last_loss[active]) / torch.log(p / last_point[active])
        usable = measured.isfinite() & (measured > 0.2) & (measured < 50)
        exponent[active] = q = torch.where(usable, measured, exponent[active])
        last_point[active], last_loss[active] = p, loss
        root = p * torch.exp(torch.log(start[active] / loss) / q)
        lo, hi = low[active], high[active]
        # no usable model: bisect log eps, or walk up or down by a factor of 8 while one end is open
        middle = torch.where(lo > 0, torch.sqrt(lo * hi.clamp(max=1.0)), p * 0.125)
        middle = torch.where(hi.isinf(), torch.minimum(p * 8, torch.ones_like(p)), middle)
        root = torch.where(root.isfinite() & (root > 0), root, middle)
        estimate[active] = root
        near = (root / p - 1).abs() < 0.03
        target = torch.where(near, root * (1 - 0.4 * rtol), root).clamp(max=1.0)
        shrunk = torch.log(hi / lo) < 0.5 * width
        stale[active] = torch.where(shrunk, 0, stale[active] + 1)
        outside = (target <= lo) | (target >= hi) | ~target.isfinite()
        target = torch.where(outside | ((stale[active] >= 3) & hi.isfinite()), middle, target)
        point[active] = target.clamp(max=1.0)
        close = (root <= lo * (1 + rtol)) & usable  # the model's word, at a point that passed
        done = (hi <= lo * (1 + rtol)) | (lo >= 1.0) | (hi < SMALLEST) | (close & passed)
        active = active[~done]
    return Roots(low, low_value, estimate, exponent, evaluations)


class RadiusSearch:
    """Certified radii of one network; keeps what it learns between batches.

    Args:
        network: detached, float32.
        rounding: "float32", "real-sound" or "float32-deployed".
        rtol: how far, relatively, the returned radius may lie below the largest provable one.

    Raises:
        UnknownNameError: unknown rounding level.
        UnsoundSettingError, UnsupportedLayerError: the level cannot be claimed; see `RigorousNetwork`.
    """

    def __init__(self, network: Network, rounding: str = "real-sound", rtol: float = 1e-6) -> None:
        if rounding not in ROUNDING_LEVELS:
            raise UnknownNameError.near("rounding level", rounding, ROUNDING_LEVELS)
        self.network, self.rounding, self.rtol = network, rounding, rtol
        self.device = network.head.weight.device
        self.rigorous = None if rounding == "float32" else RigorousNetwork(_on_cpu(network, rounding), rounding)
        self.experience = Experience()

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor, logits: Tensor) -> RadiusResult:
        """Radii of one batch: pixels [N, C, H, W], labels [N], float32 logits [N, K] of the deployed network."""
        images, labels, logits = images.to(self.device), labels.to(self.device), logits.to(self.device)
        radius = torch.zeros(len(labels), dtype=torch.float64)
        margin = torch.full_like(radius, math.nan)
        others = logits.scatter(1, labels.unsqueeze(1), -math.inf).max(1).values
        clean = (logits.gather(1, labels.unsqueeze(1)).squeeze(1).double() - others.double()).cpu()
        correct = (logits.argmax(1) == labels).cpu().nonzero().squeeze(1)
        if len(correct) == 0:
            return RadiusResult(radius, margin, 0)
        x, y, start = images[correct.to(self.device)], labels[correct.to(self.device)], clean[correct]
        low, low_value, evaluations, proofs = self._search(x, y, start)
        found = low > 0
        radius[correct] = low
        margin[correct[found]] = low_value[found]
        return RadiusResult(radius, margin, evaluations, proofs)

    def _search(self, x: Tensor, y: Tensor, start: Tensor) -> tuple[Tensor, Tensor, int, int]:
        def fast(index: Tensor, eps: Tensor) -> Tensor:
            index = index.to(self.device)
            return robust_margin(self.network, x[index], y[index], eps.to(self.device)).double().cpu()

        guess, exponent = self.experience.guess(start), torch.full_like(start, self.experience.exponent)
        # Equal logits leave nothing to scale the search by, and a float32 overflow nothing to search.
        usable = ((start > 0) & start.isfinite()).nonzero().squeeze(1)
        low, low_value, spent = torch.zeros_like(start), torch.zeros_like(start), 0
        if len(usable):
            rtol = self.rtol if self.rigorous is None else SEARCH_RTOL
            if self.experience.sums[0] < 2 and len(usable) > 16:  # a few pilots give the others a good first guess
                pilots = usable[:8]
                first = find_roots(
                    lambda i, e: fast(pilots[i], e), start[pilots], guess[pilots], exponent[pilots], 0.01
                )
                self.experience.learn(start[pilots], first.low, first.exponent)
                spent += first.evaluations
                guess, exponent = self.experience.guess(start), torch.full_like(start, self.experience.exponent)
                guess[pilots], exponent[pilots] = first.point, first.exponent
            roots = find_roots(lambda i, e: fast(usable[i], e), start[usable], guess[usable], exponent[usable], rtol)
            spent += roots.evaluations
            low[usable], low_value[usable] = roots.low, roots.low_value
            guess[usable], exponent[usable] = roots.point, roots.exponent
            self.experience.learn(start[usable], roots.low, roots.exponent)
        if self.rigorous is None:
            return low, low_value, spent, 0
        low, low_value, proofs = self._prove(x.cpu(), y.cpu(), start, guess * (1 - 0.4 * self.rtol), exponent)
        return low, low_value, spent + proofs, proofs

    def _prove(
        self, x: Tensor, y: Tensor, start: Tensor, guess: Tensor, exponent: Tensor
    ) -> tuple[Tensor, Tensor, int]:
        """The search goes on with the rigorous bound as its function: every radius it returns has passed."""

        def rigorous(index: Tensor, eps: Tensor) -> Tensor:
            assert self.rigorous is not None
            parts = zip(index.split(PROOF_BATCH_SIZE), eps.split(PROOF_BATCH_SIZE), strict=True)
            return torch.cat([self.rigorous.margins(x[i], y[i], e) for i, e in parts])

        proofs = 0
        unsure = (~((start > 0) & start.isfinite())).nonzero().squeeze(1)
        if len(unsure):
            start = start.clone()
            start[unsure] = rigorous(unsure, torch.zeros(len(unsure), dtype=torch.float64))
            guess[unsure] = GUESS * start[unsure]
            proofs += len(unsure)
        todo = ((start > 0) & start.isfinite()).nonzero().squeeze(1)
        low, low_value = torch.zeros_like(start), torch.zeros_like(start)
        if len(todo):
            roots = find_roots(lambda i, e: rigorous(todo[i], e), start[todo], guess[todo], exponent[todo], self.rtol)
            proofs += roots.evaluations
            low[todo], low_value[todo] = roots.low, roots.low_value
        return low, low_value, proofs


def _on_cpu(network: Network, rounding: str) -> Network:
    """The proof runs on the CPU wherever the search runs; what float32 kernels of other devices do is not claimed."""
    if network.head.weight.device.type == "cpu" or rounding == "float32-deployed":
        return network
    return network.map_tensors(lambda t: t.detach().cpu())


@torch.no_grad()
def certified_radius(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    rounding: str = "real-sound",
    rtol: float = 1e-6,
    batch_size: int | None = None,
) -> RadiusResult:
    """IBP-certified radius of every image (l-inf, pixel units, searched on [0, 1]); 0 where misclassified.

    Args:
        network: detached, float32 (`acert_zoo.network.trace(model).detach()`).
        images, labels: float32 pixels [N, C, H, W] in [0, 1] and int64 [N], already checked.
        rounding: what the radius is proved for; see docs/soundness.md.
        rtol: the radius is at most this much, relatively, below the largest provable one.

    Raises:
        UnknownNameError, UnsoundSettingError, UnsupportedLayerError: see `RadiusSearch`.
    """
    search = RadiusSearch(network, rounding, rtol)
    size = batch_size or DEFAULT_BATCH_SIZE
    parts = [search(x, y, network(x)) for x, y in zip(images.split(size), labels.split(size), strict=True)]
    if len(images) == 0:
        return RadiusResult(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64), 0)
    return RadiusResult(
        torch.cat([p.radius for p in parts]),
        torch.cat([p.margin for p in parts]),
        sum(p.evaluations for p in parts),
        sum(p.proofs for p in parts),
    )
