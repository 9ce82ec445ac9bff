"""Properties of networks that one can check by hand, and against exact enumeration.

Also tested here: complete/conditions.py, complete/counterexample.py.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from acert_zoo.complete.property_verifier import PropertyVerifier
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU
from acert_zoo.network.properties import Case, Inequality, Property
from tests.support.relu_patterns import exact_minimum, tiny_network

TENTH = Fraction(1, 10)


def absolute_value(inputs: int = 1) -> Network:
    """y = sum of |x_i|."""
    eye = torch.eye(inputs)
    first = Linear(weight=torch.cat([eye, -eye]), bias=torch.zeros(2 * inputs), inputs=(0,))
    head = Linear(weight=torch.ones(1, 2 * inputs), bias=torch.zeros(1), inputs=(2,))
    return Network((first, ReLU(inputs=(1,)), head))


def below(bound: Fraction, *, strict: bool = False) -> tuple[Inequality, ...]:
    return (Inequality.of({0: Fraction(1)}, bound, strict=strict),)


def above(bound: Fraction) -> tuple[Inequality, ...]:
    return (Inequality.of({0: Fraction(-1)}, -bound),)


def case(low: Fraction, high: Fraction, *conjunctions: tuple[Inequality, ...], inputs: int = 1) -> Case:
    return Case((low,) * inputs, (high,) * inputs, conjunctions)


@pytest.mark.parametrize("inputs", [1, 20])  # the box is bisected, signs are split
def test_absolute_value_by_hand(inputs: int) -> None:
    verifier = PropertyVerifier(absolute_value(inputs), (inputs,))
    never = Property((case(Fraction(-1), Fraction(2), below(-TENTH), inputs=inputs),), inputs, 1)
    assert verifier(never, 60).status == "unsat"
    often = Property((case(Fraction(-1), Fraction(2), above(inputs * Fraction(3, 2)), inputs=inputs),), inputs, 1)
    answer = verifier(often, 60)
    assert answer.status == "sat"
    assert answer.counterexample is not None
    point = answer.counterexample.point
    assert sum(abs(v) for v in point) >= inputs * Fraction(3, 2)
    assert all(-1 <= v <= 2 for v in point)


def test_a_counterexample_in_the_format_of_the_competition() -> None:
    """The box holds one point, which is no float: its decimals are printed as they are."""
    answer = PropertyVerifier(absolute_value(), (1,))(Property((case(TENTH, TENTH, above(Fraction(1, 20))),), 1, 1), 20)
    assert answer.counterexample is not None
    assert answer.counterexample.point == (TENTH,)
    assert str(answer.counterexample).startswith("((X_0 0.100000000000000000)\n(Y_0 0.1")


@pytest.mark.slow
def test_equality_at_the_bound_is_no_proof_either_way() -> None:
    """|x| < 0 holds nowhere and |x| <= 0 only at 0: no margin, so neither may be answered wrongly."""
    verifier = PropertyVerifier(absolute_value(), (1,))
    box = (Fraction(-1), Fraction(1))
    strict = verifier(Property((case(*box, below(Fraction(0), strict=True)),), 1, 1), 2).status
    assert strict in ("unknown", "timeout", "unsat")
    assert verifier(Property((case(*box, below(Fraction(0))),), 1, 1), 2).status != "unsat"


def test_every_inequality_of_a_conjunction_counts() -> None:
    """y <= 1/2 and y >= 1 excludes itself on every part, though each occurs somewhere."""
    both = (*below(Fraction(1, 2)), *above(Fraction(1)))
    prop = Property((case(Fraction(-1), Fraction(2), both),), 1, 1)
    assert PropertyVerifier(absolute_value(), (1,))(prop, 60).status == "unsat"


def test_no_case_is_left_out() -> None:
    first, second = case(Fraction(0), Fraction(1), below(-TENTH)), case(Fraction(1), Fraction(2), above(Fraction(1)))
    assert PropertyVerifier(absolute_value(), (1,))(Property((first, second), 1, 1), 60).status == "sat"
    assert PropertyVerifier(absolute_value(), (1,))(Property((), 1, 1), 60).status == "unsat"


@pytest.mark.parametrize("seed", range(2))
def test_both_sides_of_the_exact_minimum(seed: int) -> None:
    network = tiny_network(seed)
    low, high = [Fraction(-1, 2)] * 2, [Fraction(1, 2)] * 2
    true = exact_minimum(network, low, high, (Fraction(1), Fraction(-1)))
    assert true is not None
    for shift, expected in ((Fraction(-1, 20), "unsat"), (Fraction(1, 20), "sat")):
        inequality = Inequality.of({0: Fraction(1), 1: Fraction(-1)}, true + shift)
        prop = Property((Case(tuple(low), tuple(high), ((inequality,),)),), 2, 2)
        assert PropertyVerifier(network, (2,))(prop, 60).status == expected


def test_sizes_must_agree() -> None:
    with pytest.raises(InvalidInputError, match="1 inputs"):
        PropertyVerifier(absolute_value(2), (2,))(Property((case(Fraction(0), Fraction(1), ()),), 1, 1), 1)
