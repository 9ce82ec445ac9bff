"""The search for a cascade: the formula by hand and against certificates, fronts, and gates that it finds."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from acert_zoo import Cascade, certify
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.tracing import trace
from tests.support.attack import lively_model, random_images
from training.cascades.search import (
    GATE_STEP,
    Candidate,
    Measured,
    assess,
    cascade_radii,
    choose,
    gate_grid,
    pareto,
    search,
)


def measured(name: str, label: list[int], radius: list[float]) -> Measured:
    return Measured(name, np.array(label), np.array(radius))


def test_the_formula_by_hand() -> None:
    # one image a case, gate 0.1: open and agreeing; closed and agreeing; closed and differing; open and differing
    first = measured("first", [1, 1, 0, 0], [0.4, 0.05, 0.04, 0.15])
    second = measured("second", [1, 1, 1, 1], [0.2, 0.3, 0.3, 0.3])
    answers, rho, route = cascade_radii([first, second], [0.1])
    assert answers.tolist() == [1, 1, 1, 0]
    assert route.tolist() == [0, 1, 1, 0]
    assert rho == pytest.approx([0.3, 0.1, 0.06, 0.05])


def test_a_member_without_any_radius_proves_nothing() -> None:
    first, second = measured("first", [0, 1], [0.0, 0.0]), measured("second", [1, 1], [0.3, 0.3])
    assert cascade_radii([first, second], [0.1])[1].tolist() == [0.0, 0.0]


def test_the_formula_is_what_certificates_prove() -> None:
    models, images = [lively_model(0), lively_model(1), lively_model(2)], random_images(60)
    known = []
    for model in models:
        network = trace(model).detach()
        labels = network(images).argmax(1)
        radius = certified_radius(network, images, labels, rounding="float32").radius
        known.append(Measured("m", labels.numpy(), radius.numpy()))
    gates = [float(np.median(m.radius)) for m in known[:2]]
    answers, rho, route = cascade_radii(known, gates)
    proved = certify(Cascade(models, gates).eval(), images)
    clear = np.abs(np.stack([m.radius - g for m, g in zip(known, gates, strict=False)])).min(0) > 1e-5
    assert clear.sum() > 50
    assert (proved.prediction.numpy() == answers)[clear].all()
    assert (np.array(proved.route) == route)[clear].all()
    # radii of the last member below 1e-4 are not looked for, and h_k costs the float32 terms
    assert proved.radius.numpy()[clear] == pytest.approx(rho[clear], rel=2e-2, abs=2e-4)
    assert (proved.radius.numpy()[clear] <= rho[clear] + 1e-5).all()
    assert set(route.tolist()) == {0, 1, 2}


def test_accuracy_and_acr_are_capped_percentages() -> None:
    only = measured("only", [1, 1, 0, 1], [0.2, 0.02, 0.3, 0.0])
    result = assess([only], [], np.array([1, 1, 1, 1]), 0.04)
    assert result == Candidate(("only",), (), 75.0, pytest.approx(100 * (1 + 0.5) / 4))


def test_the_front_keeps_what_nothing_beats() -> None:
    def c(accuracy: float, acr: float, members: int = 1) -> Candidate:
        return Candidate(("m",) * members, (), accuracy, acr)

    front = pareto([c(80, 5), c(70, 20), c(75, 4), c(70, 10), c(60, 20), c(60, 25), c(80, 5, 2)])
    assert front == [c(80, 5), c(70, 20), c(60, 25)]
    assert choose(front, accuracy=65) == c(70, 20)
    assert choose(front, robustness=5) == c(80, 5)
    with pytest.raises(InvalidInputError, match=r"no cascade reaches 90 %; the best reaches 80\.00 %"):
        choose(front, accuracy=90)
    with pytest.raises(InvalidInputError):
        choose(front)
    with pytest.raises(InvalidInputError):
        choose(front, accuracy=1, robustness=1)


def test_gates_are_exact_multiples() -> None:
    grid = gate_grid(8.8 / 255, 20)
    assert len(grid) == 20
    assert all((g / GATE_STEP).denominator == 1 for g in grid)
    assert 0 < grid[0] < grid[-1] <= Fraction(8.8 / 255) + GATE_STEP


def test_the_search_finds_a_gate_between_right_and_wrong() -> None:
    """Member `robust` is right where its radius is above 0.01 and wrong below; `accurate` is always right."""
    truth = np.zeros(1000, dtype=np.int64)
    radius = np.linspace(0.0005, 0.03, 1000)
    robust = Measured("robust", (radius <= 0.01).astype(np.int64), radius)
    accurate = Measured("accurate", truth.copy(), np.zeros(1000))
    front = search([robust], [accurate], truth, 0.03, depth=2)
    best = choose(front, accuracy=100)
    assert best.members == ("robust", "accurate")
    assert 0.0098 <= float(best.gates[0]) <= 0.0106
    single = assess([robust], [], truth, 0.03)
    assert single in front
    assert max(c.accuracy for c in front) == 100
    for one, other in itertools.pairwise(front):
        assert one.accuracy > other.accuracy
        assert one.robustness < other.robustness


def test_certified_accuracy_at_one_eps_takes_the_place_of_acr() -> None:
    """By hand: behind a gate of 0.01 radii of 0.041 and 0.031 are worth 0.031 and 0.021, behind 0.02 one is lost."""
    truth = np.zeros(4, dtype=np.int64)
    robust = Measured("robust", np.array([0, 0, 0, 1]), np.array([0.041, 0.031, 0.005, 0.005]))
    last = Measured("last", truth.copy(), np.zeros(4))
    assert assess([robust, last], [Fraction(1, 100)], truth, 0.05, 0.02) == Candidate(
        ("robust", "last"), (Fraction(1, 100),), 100.0, 50.0
    )
    assert assess([robust, last], [Fraction(2, 100)], truth, 0.05, 0.02).robustness == 25.0
    best = choose(search([robust], [last], truth, 0.05, depth=2, eps=0.02), accuracy=100)
    assert best.robustness == 50.0
    assert 0.005 <= float(best.gates[0]) <= 0.011


def test_the_refinement_reaches_between_the_gates_of_a_wide_grid() -> None:
    """As on MNIST, whose radii reach 0.4: the best gate, 0.11, lies between 0.1 and 0.12 of the grid."""
    truth = np.zeros(1000, dtype=np.int64)
    radius = np.linspace(0.005, 0.4, 1000)
    robust = Measured("robust", (radius <= 0.11).astype(np.int64), radius)
    accurate = Measured("accurate", truth.copy(), np.zeros(1000))
    best = choose(search([robust], [accurate], truth, 0.4, depth=2), accuracy=100)
    assert 0.11 - 0.001 <= float(best.gates[0]) <= 0.115
