"""The certified radius: the largest eps in [0, 1] that interval bounds prove, found fast and proved afterwards.

It is the root of R(x, eps), the smallest IBP margin bound on B(x, eps); how it is approached: `root_finding.py`.

Two stages. Float32 gives a few digits at the price of a few propagations of a shrinking batch, but its rounding noise
is near 1e-6 of R0 = R(x, 0). So the last digits come from rigorous bounds (`proved_margins.py`): a float64 propagation
where float32 ended, and float32 propagations, rounded outward, of how the box changes from there. What is returned is
always an eps at which such a bound was positive: the proved end of the bracket.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acert_zoo.bounds.ibp import class_margins
from acert_zoo.bounds.placed_proofs import PlacedProofs
from acert_zoo.bounds.proved_margins import prove
from acert_zoo.bounds.root_finding import SMALLEST, find_roots
from acert_zoo.bounds.search_device import full_float32
from acert_zoo.network.graph import Network
from acert_zoo.rounding import SELECTABLE_LEVELS, RoundingLevel

DEFAULT_BATCH_SIZE = 256  # the more images, the fewer remain for the last, small batches of a search
SETTLED = 2e-4  # float32 hands over to float64 when its next point is likely to be this close, relatively
FLOAT32_RESOLUTION = 1e-4
SEARCH_BATCH_SIZE = 72  # images propagated at a time: caches, and peaks of memory that depend little on the batch
GUESS, EXPONENT = 0.004, 1.2  # first guess r = GUESS * margin and first exponent, until there is experience


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


class _Line:
    """Running least squares y = a + b x, with a prior slope worth as much as one spread of 0.3 in x."""

    def __init__(self, slope: float, limits: tuple[float, float]) -> None:
        self.prior, self.limits = slope, limits
        self.sums = torch.zeros(5, dtype=torch.float64)

    def learn(self, x: Tensor, y: Tensor) -> None:
        self.sums += torch.stack([torch.ones_like(x).sum(), x.sum(), y.sum(), (x * x).sum(), (x * y).sum()])

    @property
    def known(self) -> bool:
        return bool(self.sums[0] >= 2)

    @property
    def slope(self) -> float:
        n, sx, sy, sxx, sxy = (float(s) for s in self.sums)
        slope = (sxy / n - sx * sy / n**2 + 0.1 * self.prior) / (max(sxx / n - (sx / n) ** 2, 0.0) + 0.1)
        return min(max(slope, self.limits[0]), self.limits[1])

    def __call__(self, x: Tensor) -> Tensor:
        n, sx, sy, _, _ = (float(s) for s in self.sums)
        return sy / n + self.slope * (x - sx / n)


class Experience:
    """What earlier images of the same network taught, to begin the next search well.

    The radius is about a power of a soft minimum of the margins at 0, as their number counts too; and the local
    exponent q of R0 - R grows with eps about like a power of eps, whose exponent is `growth`: all images of a network
    share the layers that make their boxes grow.
    """

    def __init__(self) -> None:
        self._radius = _Line(1.0, (0.2, 2.0))
        self._exponent = _Line(0.0, (0.0, 40.0))

    def learn(self, at_zero: Tensor, radius: Tensor, exponent: Tensor) -> None:
        soft = soft_minimum(at_zero)
        good = (radius > SMALLEST) & (radius < 1) & (soft > 0) & (exponent > 0) & exponent.isfinite()
        self._radius.learn(soft[good].log(), radius[good].log())
        self._exponent.learn(radius[good].log(), exponent[good].log())

    @property
    def known(self) -> bool:
        return self._radius.known

    def guess(self, at_zero: Tensor) -> tuple[Tensor, Tensor]:
        """(first eps, exponent there) of images with these margins at 0, [n, K]."""
        soft = soft_minimum(at_zero)
        if not self.known:
            return GUESS * soft, torch.full_like(soft, EXPONENT)
        radius = torch.exp(self._radius(soft.log())).clamp(max=1.0)
        return radius, torch.exp(self._exponent(radius.log()).clamp(-3, 7))

    @property
    def growth(self) -> float:
        return self._exponent.slope if self.known else 0.0


def soft_minimum(margins: Tensor) -> Tensor:
    """(sum of m^-1.5)^(-1/1.5) along axis 1, of positive margins; inf takes no part."""
    return margins.pow(-1.5).sum(1).pow(-1 / 1.5)


class RadiusSearch:
    """Certified radii of one network: a function of the batch alone, so that the same batch always gives the same bits.

    What its first images teach (`Experience`) serves the rest of a batch and is then forgotten.

    Args:
        network: detached, float32.
        rounding: "float32", "real-sound" or "float32-deployed".
        rtol: how far, relatively, the returned radius may lie below the largest provable one (below the first plateau
            within 1e-10 of 0, where R has one).
        device: where the float32 search runs (`search_device.py`), and the float64 proofs too where that device may run
            them (`proof_device.py`), else on the CPU; by default where the network is.

    An image costs at most 98 interval propagations at rtol 1e-6, whatever the network: 37 of the float32 search and 37
    of the proof (`most_evaluations` of root_finding.py at rtol and at 3/4 of it), 23 of a pilot (at 0.01), and 1 where
    float32 could not tell the margins at 0. Ordinary networks cost 5 to 9.

    Raises:
        UnknownNameError: unknown rounding level.
        UnsoundSettingError, UnsupportedLayerError: the level cannot be claimed; see `RigorousNetwork`.
    """

    def __init__(
        self,
        network: Network,
        rounding: str = RoundingLevel.REAL_SOUND,
        rtol: float = 1e-6,
        device: torch.device | None = None,
    ) -> None:
        rounding = RoundingLevel.among(rounding, SELECTABLE_LEVELS)
        self.rounding, self.rtol = rounding, rtol
        self.device = device or network.head.weight.device
        self.network = network if device is None else network.map_tensors(lambda t: t.detach().to(self.device))
        self.proofs = PlacedProofs(network, rounding, self.device) if rounding.proved else None

    def __call__(self, images: Tensor, labels: Tensor, logits: Tensor) -> RadiusResult:
        """Radii of one batch: pixels [N, C, H, W], labels [N], float32 logits [N, K] of the deployed network."""
        with torch.no_grad(), full_float32(self.device):
            return self._radii(images, labels, logits)

    def _radii(self, images: Tensor, labels: Tensor, logits: Tensor) -> RadiusResult:
        images, labels, logits = images.to(self.device), labels.to(self.device), logits.to(self.device)
        radius = torch.zeros(len(labels), dtype=torch.float64)
        margin = torch.full_like(radius, math.nan)
        wide = logits.double()
        at_zero = (wide.gather(1, labels.unsqueeze(1)) - wide).scatter(1, labels.unsqueeze(1), math.inf).cpu()
        correct = (logits.argmax(1) == labels).cpu().nonzero().squeeze(1)
        if len(correct) == 0:
            return RadiusResult(radius, margin, 0)
        x, y = images[correct.to(self.device)], labels[correct.to(self.device)]
        low, low_value, evaluations, proofs = self._search(x, y, at_zero[correct])
        found = low > 0
        radius[correct] = low
        margin[correct[found]] = low_value[found]
        return RadiusResult(radius, margin, evaluations, proofs)

    def _search(self, x: Tensor, y: Tensor, at_zero: Tensor) -> tuple[Tensor, Tensor, int, int]:
        """(radii, R there, evaluations, proofs) of correct samples with margins `at_zero` [n, K]; inf for the label."""
        smallest = at_zero.amin(1)

        def fast(index: Tensor, eps: Tensor) -> Tensor:
            size = SEARCH_BATCH_SIZE if self.device.type == "cpu" else DEFAULT_BATCH_SIZE
            index, pieces = index.to(self.device), -(-len(index) // size)
            parts = zip(index.chunk(pieces), eps.to(self.device).chunk(pieces), strict=True)
            return torch.cat([class_margins(self.network, x[i], y[i], e) for i, e in parts]).double().cpu()

        experience = Experience()
        guess, exponent = experience.guess(at_zero)
        # Equal logits leave nothing to scale the search by, and a float32 overflow nothing to search.
        usable = ((smallest > 0) & smallest.isfinite()).nonzero().squeeze(1)
        low, low_value, spent = torch.zeros_like(smallest), torch.zeros_like(smallest), 0
        if len(usable):
            settle = None if self.proofs is None else SETTLED
            if len(usable) > 16:  # a few pilots give the others a good first guess
                pilots = usable[:8]
                first = find_roots(
                    lambda i, e: fast(pilots[i], e), at_zero[pilots], guess[pilots], exponent[pilots], 0.01, settle=0.05
                )
                experience.learn(at_zero[pilots], first.point, first.exponent)
                spent += first.evaluations
                guess, exponent = experience.guess(at_zero)
                guess[pilots], exponent[pilots] = first.point, first.exponent
            roots = find_roots(
                lambda i, e: fast(usable[i], e),
                at_zero[usable],
                guess[usable],
                exponent[usable],
                self.rtol,
                growth=experience.growth,
                settle=settle,
                resolution=FLOAT32_RESOLUTION,
            )
            spent += roots.evaluations
            low[usable], low_value[usable] = roots.low, roots.low_value
            guess[usable], exponent[usable] = roots.point, roots.exponent
        if self.proofs is None:
            return low, low_value, spent, 0
        low, low_value, evaluations, proofs = self._prove(x.cpu(), y.cpu(), at_zero, guess, exponent)
        return low, low_value, spent + evaluations, proofs

    def _prove(
        self, x: Tensor, y: Tensor, at_zero: Tensor, guess: Tensor, exponent: Tensor
    ) -> tuple[Tensor, Tensor, int, int]:
        """The search goes on with the rigorous bound as its function: every radius it returns has passed."""
        assert self.proofs is not None
        rigorous, change = self.proofs.of(x)
        at_zero, smallest = at_zero.clone(), at_zero.amin(1)
        low, low_value, spent, proofs = torch.zeros_like(smallest), torch.zeros_like(smallest), 0, 0
        unsure = (~((smallest > 0) & smallest.isfinite())).nonzero().squeeze(1)
        if len(unsure):
            at_zero[unsure] = rigorous.class_margins(x[unsure], y[unsure], 0.0)
            smallest[unsure] = at_zero[unsure].amin(1)
            guess[unsure] = GUESS * smallest[unsure]
            spent, proofs = len(unsure), len(unsure)
        todo = ((smallest > 0) & smallest.isfinite()).nonzero().squeeze(1)
        if len(todo):
            low[todo], low_value[todo], evaluations, more = prove(
                rigorous, change, x[todo], y[todo], at_zero[todo], guess[todo], exponent[todo], self.rtol
            )
            spent, proofs = spent + evaluations, proofs + more
        return low, low_value, spent, proofs


@torch.no_grad()
def certified_radius(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    rounding: str = RoundingLevel.REAL_SOUND,
    rtol: float = 1e-6,
    batch_size: int | None = None,
) -> RadiusResult:
    """IBP-certified radius of every image (l-inf, pixel units, searched on [0, 1]); 0 where misclassified.

    Args:
        network: detached, float32 (`acert_zoo.network.tracing.trace(model).detach()`).
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
