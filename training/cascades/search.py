"""The choice of a cascade's members and gates from measured labels and radii alone: no network is run here.

With y_k the label and r_k the certified radius (of that label) of member k at an image, all quantities of
docs/cascade.md are known for every choice of gates, up to rounding; thousands of cascades are compared in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product

import numpy as np

from acert_zoo.errors import InvalidInputError

GATE_STEP = Fraction(1, 2550)  # gates are multiples of 0.1/255


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of one member on a set of images: its labels [N], and the certified radii [N] of those labels."""

    name: str
    label: np.ndarray
    radius: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A cascade with what it reaches on the images of the search. Percentages; gates are exact radii in pixel units.

    `robustness` is what the search maximises: ACR in percent of its cap, or certified accuracy at one eps.
    """

    members: tuple[str, ...]
    gates: tuple[Fraction, ...]
    accuracy: float
    robustness: float


def cascade_radii(members: Sequence[Measured], gates: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(answers, rho, route), each [N], of a cascade in real arithmetic (docs/cascade.md, the proposition)."""
    count, last = len(members[0].label), len(members) - 1
    route = np.full(count, last)
    for k in reversed(range(last)):
        route[members[k].radius > gates[k]] = k
    answers = np.choose(route, [m.label for m in members])
    rho, opened = np.ones(count), np.zeros(count)
    for k, member in enumerate(members):
        same = member.label == answers
        if k == last:
            kept = np.where(same, member.radius, 0.0)
        else:
            agree, differ = np.maximum(member.radius, gates[k]), np.maximum(gates[k] - member.radius, 0.0)
            kept = np.where(member.radius > 0, np.where(same, agree, differ), 0.0)
        rho = np.minimum(rho, np.maximum(kept, opened))
        if k < last:
            opened = np.maximum(opened, member.radius - gates[k])
    return answers, rho, route


def assess(
    members: Sequence[Measured], gates: Sequence[Fraction], truth: np.ndarray, cap: float, eps: float | None = None
) -> Candidate:
    """Accuracy and robustness of one cascade: certified accuracy at `eps`, or ACR as a percentage of `cap`."""
    answers, rho, _ = cascade_radii(members, [float(g) for g in gates])
    correct = answers == truth
    robustness = correct & (rho >= eps) if eps is not None else np.where(correct, np.minimum(rho, cap), 0.0) / cap
    return Candidate(
        tuple(m.name for m in members),
        tuple(gates),
        float(100 * correct.mean()),
        float(100 * robustness.mean()),
    )


def pareto(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other equals or beats in accuracy and robustness, by falling accuracy; shorter ones win ties."""
    ordered = sorted(candidates, key=lambda c: (-c.accuracy, -c.robustness, len(c.members)))
    front: list[Candidate] = []
    for c in ordered:
        if not front or c.robustness > front[-1].robustness:
            front.append(c)
    return front


def gate_grid(cap: float, points: int) -> list[Fraction]:
    """About `points` even multiples of GATE_STEP in (0, cap]."""
    top = int(Fraction(cap) / GATE_STEP)
    return [GATE_STEP * i for i in sorted({max(1, round(top * j / points)) for j in range(1, points + 1)})]


def search(
    robust: Sequence[Measured],
    accurate: Sequence[Measured],
    truth: np.ndarray,
    cap: float,
    *,
    depth: int = 3,
    eps: float | None = None,
    points: int = 20,
    rounds: int = 2,
) -> list[Candidate]:
    """The front of cascades with 1 to `depth` members: `robust` ones behind gates, most robust first, then any one.

    Args:
        truth: labels [N]; cap: the radius that ACR is a percentage of, pixel units; also the largest gate of the grid.
        eps: certified accuracy at this radius, pixel units, takes ACR's place.
        points: gates of the coarse grid; `rounds` of local refinement follow for every cascade on the front.

    Raises:
        InvalidInputError: no member that could come last.
    """
    if not robust and not accurate:
        raise InvalidInputError("a cascade needs members")
    grid = gate_grid(cap, points)
    ordered = sorted(robust, key=lambda m: -float(np.where(m.label == truth, m.radius, 0.0).mean()))
    by_name = {m.name: m for m in (*robust, *accurate)}
    found: list[Candidate] = []
    for length in range(depth):
        chosen_grid = grid if length < 3 else grid[1::3]
        for gated in combinations(ordered, length):
            for last in (*accurate, *(m for m in ordered if m not in gated)):
                for gates in product(chosen_grid, repeat=length):
                    found.append(assess((*gated, last), gates, truth, cap, eps))
                found = pareto(found)
    fine = GATE_STEP * max(1, round(grid[0] / GATE_STEP / 4))  # reaches from one gate of the grid to the next
    for _ in range(rounds):
        more = list(found)
        for c in found:
            members = [by_name[name] for name in c.members]
            for k, step in product(range(len(c.gates)), (-6, -3, -1, 1, 3, 6)):
                gate = c.gates[k] + step * fine
                if 0 < gate <= 1:
                    more.append(assess(members, (*c.gates[:k], gate, *c.gates[k + 1 :]), truth, cap, eps))
        found = pareto(more)
    return found


def choose(front: Sequence[Candidate], *, accuracy: float | None = None, robustness: float | None = None) -> Candidate:
    """The most robust candidate of at least `accuracy`, or the most accurate of at least `robustness` (percentages).

    Raises:
        InvalidInputError: not exactly one of the two is wanted, or no candidate reaches it.
    """
    if (accuracy is None) == (robustness is None):
        raise InvalidInputError("name either the wanted accuracy or the wanted robustness")
    if accuracy is not None:
        able = [c for c in front if c.accuracy >= accuracy]
        best = max(able, key=lambda c: c.robustness, default=None)
    else:
        able = [c for c in front if robustness is not None and c.robustness >= robustness]
        best = max(able, key=lambda c: c.accuracy, default=None)
    if best is None:
        reached = max((c.accuracy if accuracy is not None else c.robustness) for c in front)
        wanted = accuracy if accuracy is not None else robustness
        raise InvalidInputError(f"no cascade reaches {wanted} %; the best reaches {reached:.2f} %")
    return best
