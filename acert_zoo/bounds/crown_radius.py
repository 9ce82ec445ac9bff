"""Certified radii from CROWN-family bounds (`auto_lirpa.py`), one image at a time, within limits of time and memory.

None of these bounds need fall as eps grows (the slopes change with it), so the search claims nothing between the points
that it evaluates: the radius returned is the largest eps that was itself proved, and never below `floor`.
auto-LiRPA computes in floating point, rounding to nearest: such a radius is labelled "float32" or "float64". Where our
own rigorous backward pass (`rigorous_crown.py`) proves it too, perhaps a little lower, its label becomes "real-sound".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from acert_zoo.bounds.auto_lirpa import FAILURES, LirpaBounds
from acert_zoo.bounds.auto_lirpa_cost import Cost, crown_cost
from acert_zoo.bounds.rigorous_crown import RigorousCrown, rigorous_check
from acert_zoo.bounds.root_finding import most_evaluations, project
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.rounding import CROWN_METHODS, BoundMethod, RoundingLevel

DEFAULT_BUDGET = 120.0  # seconds an image, all methods together
DEFAULT_MEMORY = 4 * 2**30  # bytes that one evaluation may take, as estimated
RTOL = 1e-3  # relative width of the last bracket
COARSE_RTOL = 5e-3  # of alpha-crown, whose evaluations take seconds
LEAST = 1e-7  # no radius below this is looked for
SPEED = 4e9  # multiplications a second, to begin with; every evaluation teaches better
CUSHION = 1e-7  # logit units to spare, so that another machine's slopes, a few roundings away, prove it too
_STEPS_DOWN = (0.0, 1e-5, 1e-3, 5e-3, 2e-2)  # relative, tried in turn where the rigorous check fails


@dataclass(frozen=True)
class LirpaResult:
    """Certified radii of a batch.

    Attributes:
        radius: float64 [N], pixel units; 0 where nothing was proved.
        margin: float64 [N], the margin bound at that radius, logit units; NaN where the radius is the floor's.
        method: what proved each radius: "ibp" where it is the floor's.
        rounding: "float32", "float64", or "real-sound"; "" where the radius is the floor's.
        note: why a method was not tried to its end ("", or the limit that it met).
        evaluations: bounds computed by auto-LiRPA, summed over images; proofs: rigorous backward passes.
    """

    radius: Tensor
    margin: Tensor
    method: list[str]
    rounding: list[str]
    note: list[str]
    evaluations: int
    proofs: int


@dataclass
class _Best:
    """The best radius of one image so far."""

    radius: float
    margin: float = math.nan
    method: str = BoundMethod.IBP
    rounding: str = ""
    note: str = ""
    evaluations: int = 0
    proofs: int = 0


@dataclass
class _Speed:
    """Multiplications a second of each method, and of its rigorous check ("proof by ..."), learned as they run."""

    known: dict[str, float] = field(default_factory=dict)

    def learn(self, method: str, work: float, seconds: float) -> None:
        self.known[method] = work / max(seconds, 1e-6)

    def seconds(self, method: str, work: float) -> float:
        return work / self.known.get(method, SPEED)


def certified_radius_lirpa(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    method: str = BoundMethod.BEST,
    budget: float | None = None,
    floor: Tensor | None = None,
    memory: float | None = None,
    dtype: torch.dtype = torch.float32,
    rigorous: bool = True,
) -> LirpaResult:
    """Certified radii (l-inf, pixel units) of correctly classified images, one image at a time.

    Args:
        network: detached, float32.
        images, labels: float32 pixels [N, C, H, W] in [0, 1] and int64 [N].
        method: "crown-ibp", "crown", "alpha-crown", or "best": all three in order of cost, the largest radius counts.
        budget: seconds an image may take in all, rigorous checks included (default 120); what is expected to exceed
            the rest of it is not begun, and the image keeps its best radius so far. A rigorous check is broken off when
            time is over; an evaluation by auto-LiRPA that was begun is not.
        floor: float64 [N], radii proved elsewhere (by IBP), which no result falls below; default 0.
        memory: bytes that an evaluation may take, by estimate (default 4 GiB); beyond it the method is not tried.
        dtype: in which auto-LiRPA computes.
        rigorous: whether to prove the radii again with `RigorousCrown`, which makes them "real-sound".

    Raises:
        UnknownNameError: unknown method. InvalidInputError: budget or memory not positive.
        MissingDependencyError, UnsupportedLayerError: see `LirpaBounds`.
    """
    wanted = BoundMethod.among(method, (BoundMethod.BEST, *CROWN_METHODS))
    budget = DEFAULT_BUDGET if budget is None else budget
    memory = DEFAULT_MEMORY if memory is None else memory
    if not (budget > 0 and memory > 0):
        raise InvalidInputError(f"budget and memory must be positive, got {budget!r} seconds and {memory!r} bytes")
    bounds = LirpaBounds(network, tuple(images.shape[1:]), dtype)
    prover = _Prover(network) if rigorous else None
    radii = torch.zeros(len(images), dtype=torch.float64) if floor is None else floor.double()
    speed, found = _Speed(), []
    for i in range(len(images)):
        deadline = time.perf_counter() + budget
        search = _ImageSearch(bounds, prover, images[i : i + 1], labels[i : i + 1], speed, deadline, memory)
        best = _Best(float(radii[i]))
        for name in CROWN_METHODS if wanted == BoundMethod.BEST else (wanted,):
            search.improve(best, name)
        found.append(best)
    return LirpaResult(
        torch.tensor([b.radius for b in found], dtype=torch.float64),
        torch.tensor([b.margin for b in found], dtype=torch.float64),
        [b.method for b in found],
        [b.rounding for b in found],
        [b.note for b in found],
        sum(b.evaluations for b in found),
        sum(b.proofs for b in found),
    )


class _Limit(Exception):
    """A limit of time or memory, or of auto-LiRPA, is met; its text says which."""


class _ImageSearch:
    """Radius search of one image, under its limits."""

    def __init__(
        self,
        bounds: LirpaBounds,
        prover: _Prover | None,
        image: Tensor,
        label: Tensor,
        speed: _Speed,
        deadline: float,
        memory: float,
    ) -> None:
        self.bounds, self.image, self.label = bounds, image, label
        self.prover = prover if prover is not None and prover.checks else None
        self.speed, self.deadline, self.memory = speed, deadline, memory

    def cost(self, method: str, eps: float) -> Cost:
        return crown_cost(self.bounds.network, self.image.to(self.bounds.dtype), eps, method)

    def margin(self, method: str, eps: float, best: _Best) -> float:
        """auto-LiRPA's bound, if there is time and memory for it, and time for a proof of what it finds."""
        cost = self.cost(method, eps)
        if cost.bytes > self.memory:
            raise _Limit(f"{method} would take about {cost.bytes / 2**20:,.0f} MiB at eps {eps:.3g}")
        needed = self.speed.seconds(method, cost.multiplications)
        if self.prover is not None:
            needed += self.speed.seconds(f"proof by {method}", cost.multiplications)
        started = time.perf_counter()
        if started + needed > self.deadline:
            raise _Limit(f"{method} would exceed the time budget at eps {eps:.3g}")
        try:
            value = self.bounds.margins(self.image, self.label, eps, method).item()
        except FAILURES as error:
            raise _Limit(f"auto-LiRPA failed in {method} at eps {eps:.3g}: {str(error).splitlines()[:1]}") from error
        self.speed.learn(method, cost.multiplications, time.perf_counter() - started)
        best.evaluations += 1
        return value

    def improve(self, best: _Best, method: str) -> None:
        """Raises `best` to the largest eps at which `method` was seen to prove the label, if that is larger."""
        proved: dict[float, float] = {}

        def evaluate(eps: float) -> float:
            value = self.margin(method, eps, best)
            if value > 0:
                proved[eps] = value
            return value

        try:
            climb(evaluate, best.radius, width(method))
        except _Limit as limit:
            best.note = str(limit)
        if not proved or max(proved) <= best.radius:
            return
        radius = max(proved)
        rounding, margin = str(self.bounds.dtype).removeprefix("torch."), proved[radius]
        if self.prover is not None:
            sound = self.prover.prove(self, method, radius, best)
            if sound is not None:
                (radius, margin), rounding = sound, RoundingLevel.REAL_SOUND
        best.radius, best.margin, best.method, best.rounding = radius, margin, method, rounding


def width(method: str) -> float:
    """The relative width of the last bracket of a search by `method`."""
    return COARSE_RTOL if method == BoundMethod.ALPHA_CROWN else RTOL


def climb(evaluate: Callable[[float], float], start: float, rtol: float = RTOL) -> None:
    """Evaluates at ever better points from `start`, a proved radius or 0; evaluate() keeps what it proves.

    Half as much again while proved, a quarter while nothing is. Where the first point fails, the next lies `rtol` above
    `start`, and ends a search that has nothing to gain. Then narrows the bracket by the secant through its ends in
    (eps, margin), kept off them, to the relative width `rtol`. Nothing is concluded about points not evaluated, and
    none below `LEAST` is.

    At most `most_evaluations(rtol, LEAST)` evaluations (24 at rtol 1e-3), whatever evaluate() gives: the bracket starts
    no wider than [`LEAST`, 1 + rtol], and every point but the first is projected; see `root_finding.py` for the proof.
    """
    low, low_value, high, high_value = start, math.nan, math.inf, math.nan
    point = 1.15 * start if start > 0 else 1e-3
    most = most_evaluations(rtol, LEAST)
    for left in range(most - 1, -1, -1):
        point = min(max(point, LEAST), 1.0)
        value = evaluate(point)
        if value > 0:
            low, low_value = point, value
            if low >= 1.0:
                return
        else:
            high, high_value = point, value
        if high <= max(low, LEAST) * (1 + rtol) or not left:
            return
        if math.isinf(high):
            point = 1.5 * low
        elif low == 0:
            point = high / 4
        elif math.isnan(low_value) and high > low * (1 + 2 * rtol):
            point = low * (1 + rtol)
        else:
            share = low_value / (low_value - high_value)  # NaN where auto-LiRPA gave none
            share = share if 0 < share < 1 else 0.5
            point = low + min(max(share * 0.98, 0.1), 0.9) * (high - low) if high > low * (1 + 4 * rtol) else high
            point = 0.5 * (low + high) if not low < point < high else point
        ends = torch.tensor([max(point, LEAST), max(low, LEAST), min(high, 1 + rtol)], dtype=torch.float64)
        point = float(project(ends[0], ends[1], ends[2], rtol, left))


class _Prover:
    """Rigorous second opinions; says nothing where the network is outside what `RigorousCrown` covers."""

    def __init__(self, network: Network) -> None:
        self.checks: dict[str, RigorousCrown] = {}
        try:
            self.checks = {method: rigorous_check(network, method) for method in CROWN_METHODS}
        except (UnsoundSettingError, UnsupportedLayerError):
            return

    def prove(self, search: _ImageSearch, method: str, radius: float, best: _Best) -> tuple[float, float] | None:
        """(radius, margin) proved with outward rounding, at most 2 % below `radius` and above `best.radius`."""
        check, name = self.checks[method], f"proof by {method}"
        work = search.cost(method, radius).multiplications
        for step in _STEPS_DOWN:
            eps, started = radius * (1 - step), time.perf_counter()
            if eps <= best.radius:
                return None
            try:
                if started + search.speed.seconds(name, work) > search.deadline:
                    raise TimeoutError
                margin = check.margins(search.image.float(), search.label, eps, deadline=search.deadline).item()
            except TimeoutError:
                best.note = f"no time was left for the rigorous check of {method} at eps {eps:.3g}"
                return None
            search.speed.learn(name, work, time.perf_counter() - started)
            best.proofs += 1
            if margin > CUSHION:
                return eps, margin
        return None
